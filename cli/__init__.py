"""The ``penstock`` command: thin, each command a module with ``app`` or ``command``.

Enter at ``main``, whose table names every command; ``output`` is how they print and end. Subfolders: ``call`` (one
task from the command line), ``backfill`` (a corpus), ``demo``. A command parses, calls what is below, and prints: it
holds no rule of its own. Nothing imports this package.
"""

if __name__ != "penstock.cli":
    raise ImportError("import penstock.cli: this folder is no package of its own")
