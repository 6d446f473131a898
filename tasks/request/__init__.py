"""What every call shares, whatever it asks for: permission to send, HTTP, the decision after an answer, hand-back.

Enter at ``caller``. ``packing`` fills requests, ``http`` sends them, ``auth`` has bearer tokens, ``delivery`` knows
how the task's message came and where it goes when the task cannot be done now, ``verify`` is the tiny call of
``endpoint test``. It knows neither texts nor images, and no service by name.
"""
