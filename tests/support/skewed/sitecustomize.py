"""Python's wall clock is wrong by SKEW_HOURS in processes that have this folder on their path."""

import os
import time

_real, _skew = time.time, float(os.environ.get("SKEW_HOURS", "0")) * 3600
time.time = lambda: _real() + _skew
