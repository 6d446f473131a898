"""The durable record of a backfill, from which a killed run goes on, and the folder that holds it.

Enter at ``ledger``; ``jobs`` lists the backfills that this home knows. It knows no broker.
"""
