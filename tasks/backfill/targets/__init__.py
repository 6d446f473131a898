"""Where vectors go: Parquet shards in a folder.

Enter at ``writer``, which commits shard, ledger and name in that order.
"""
