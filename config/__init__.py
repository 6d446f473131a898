"""What everything else is configured by: settings, names, inference endpoints; and every error.

Enter at ``settings`` (the ``PENSTOCK_`` variables), ``names`` (every task, queue and Redis key), ``formats`` (the
number of each), ``errors`` (the tree of errors) or ``endpoints``. It starts nothing, and imports nothing above it.
"""

if __name__ != "penstock.config":
    raise ImportError("import penstock.config: this folder is no package of its own")
