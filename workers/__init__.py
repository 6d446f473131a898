"""How work runs: the Celery app, the asyncio pool, lanes, the embedded broker, the result codec."""

if __name__ != "penstock.workers":
    raise ImportError("import penstock.workers: this folder is no package of its own")
