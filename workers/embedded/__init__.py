"""The embedded broker: a real Valkey under ``PENSTOCK_HOME``, for those who have configured none.

Enter at ``broker``; ``home`` is its folder, ``supervisor`` the process that keeps it running, which imports the
standard library only.
"""
