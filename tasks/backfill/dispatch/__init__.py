"""Batches on their way: published, waited for, fetched, and sought when nothing is heard of them.

Enter at ``outbox``. What an answer means is ``settle``'s, pure. It writes no file.
"""
