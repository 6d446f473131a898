"""Messages: taken when their lane may send, leased while they are worked on, set aside until they are due.

Enter at ``feeder`` (a step of Celery's consumer), ``feed`` (the loop that takes) or ``leases``.
Scripts are in ``lua``. It knows no task.
"""
