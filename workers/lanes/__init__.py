"""Lanes: who may send on a quota, and when; what answers teach; what follows an attempt.

Enter at ``lane`` (a lane inside a process), ``limiter`` (the shared state, by scripts in ``lua``), ``states`` (a table
of them), ``learning`` (what answers teach of its limits) or ``decision`` (what follows an attempt): the last
three are pure. ``status`` is the operator's view. It knows no task, no service and no message.
"""
