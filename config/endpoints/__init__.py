"""Inference endpoints: what they are, their validation in Elasticsearch's words, and where they are kept.

Enter at ``endpoint`` (the validated value), ``validation`` (a body to an endpoint) or ``registry`` (those in Redis and
in the read-only file). Services are known here by what they declare (``services``), not by what they do.
"""
