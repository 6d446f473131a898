"""How work runs: the Celery app and the processes, pools, queues and lanes under it.

Enter at ``app`` (the Celery app) or ``runtime`` (what a process needs to work on lanes). ``lanes`` paces, ``broker``
takes and gives back messages, ``pool`` runs tasks on an event loop, ``results`` carries what they return,
``processes`` starts workers, ``embedded`` runs a broker where none is configured. Tasks are named here by string only.
"""

if __name__ != "penstock.workers":
    raise ImportError("import penstock.workers: this folder is no package of its own")
