"""The ``embed`` task: texts to vectors.

Enter at ``task``. ``batch`` splits what cannot go as it is, ``coalescer`` lets small calls share a request,
``progress`` keeps what was paid for over a redelivery. How a request is paced, sent and tried again is
``tasks/request``'s.
"""
