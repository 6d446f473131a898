"""Worker processes of a command: started, restarted when they crash, ended with the command.

Enter at ``launcher``; ``child`` is what each process runs.
"""
