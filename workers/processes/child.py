"""A worker process that ends with its parent: ``python -m penstock.workers.processes.child DESCRIPTOR ARGUMENTS...``.

The descriptor is one end of a socket pair. The child says ``ready`` on it once it takes tasks; when the other end
closes, however the parent ended, it hands back what it has in flight and ends.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from typing import Any

from celery import signals

READY = b"ready\n"
# A cold shutdown takes a second or two; a worker that hangs must not outlive its parent.
LAST_CHANCE_S = 15.0


def main(descriptor: int, arguments: list[str]) -> int:
    """Run a worker of our app until it ends or the parent does."""
    from penstock.workers.app import app

    channel = socket.socket(fileno=descriptor)
    threading.Thread(target=_end_with, args=(channel,), name="penstock-parent", daemon=True).start()

    @signals.worker_ready.connect(weak=False)
    def announce(**_: Any) -> None:
        channel.sendall(READY)

    return int(app.worker_main(["-q", "worker", *arguments]) or 0)


def _end_with(channel: socket.socket) -> None:
    try:
        while channel.recv(64):
            pass
    except OSError:
        pass
    os.kill(os.getpid(), signal.SIGQUIT)
    time.sleep(LAST_CHANCE_S)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
