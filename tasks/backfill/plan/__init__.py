"""Documents to batches: cut, deduplicated, packed; a dry run too.

Enter at ``planner`` (pure) or ``forecast`` (``penstock plan``). It sends nothing and writes nothing.
"""
