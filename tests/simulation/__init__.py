"""Deterministic simulation of workers, lanes, broker and provider in virtual time.

Shipped and not re-written: every Lua script, on a real Valkey; ``Lane``, ``Limiter``, ``decide`` and ``learning``;
``MessageFeed``, ``Sweep`` and ``Leases`` (its thread as well); the ``embed`` task's body with ``Caller``, coalescing,
progress and delivery; the service's own reading and writing of HTTP. Simulated are time, the network, the provider, who
dies and when, and of Celery that it calls the task once a message and stores what it gives.

``scenario`` draws what happens from a seed, ``world`` lets it happen, ``invariants`` watch after each step. Run
``python -m tests.simulation --help``; a seed that fails is replayed alone by its number.
"""
