"""A resumable run over a corpus.

Enter at ``run``. On the way: ``sources`` (rows) to ``plan`` (chunks and batches) to ``dispatch`` (sent, fetched, found
again) to ``targets`` (shards on the disk), all of it written down in ``ledger``. It sends ``embed`` tasks and reads
their results: it knows no lane's rules and sends no request of its own.
"""
