"""The asyncio pool under Celery: hundreds of tasks in flight on one loop.

Enter at ``pool``; ``loop`` has ``wait``, the whole of what task bodies need. It knows no lane and no broker.
"""
