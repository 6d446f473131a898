"""The ``complete`` task: prompts and messages to answers, whole or streamed.

Enter at ``task``; ``streaming`` is the reader's side of a stream (``penstock.tasks.stream``). How a request is paced,
sent and tried again is ``tasks/request``'s.
"""
