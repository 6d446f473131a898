"""Messages: taken when their lane may send, leased while they are worked on, set aside until they are due.

Enter at ``transport`` (kombu's, with the gate) or ``leases``. Scripts are in ``lua``. It knows no task.
"""
