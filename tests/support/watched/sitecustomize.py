"""Watches the event loop of worker processes that have this folder on their path (``support.stall_watch``)."""

import sys
from pathlib import Path

if "worker" in sys.orig_argv or "penstock.workers.processes.child" in sys.orig_argv:
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from support.stall_watch import start_from_environment

    start_from_environment()
