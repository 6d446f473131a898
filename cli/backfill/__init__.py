"""A corpus from the command line: ``backfill``, ``plan`` and ``jobs``.

Enter at ``run``; ``view`` is how a run looks while it runs. What a backfill does is in ``tasks/backfill``.
"""
