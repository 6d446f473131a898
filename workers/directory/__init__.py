"""Who knows which endpoint: the registry, and the workers with their files, which they announce.

Enter at ``announcements``. ``announcer`` is the worker's step, ``check`` what a process asks before it sends a task.
"""
