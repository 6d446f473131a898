"""A stand-in for a hosted inference endpoint, on loopback: the vendors' formats, limits and faults, no model.

``penstock stand-in`` and ``python -m penstock.stand_in`` start it; ``--port 0 --json`` prints one JSON line with
``url`` and ``pid`` when it listens, ``--with-parent`` ends it with whoever started it. ``--help`` lists every option
(``options.py`` is the one place that has them); docs/stand-in.md explains them.

Control API, on the same port:

``GET /_stand_in/stats``     what was asked, answered, billed (text by text) and refused; a timeline of ten minutes,
                             each second ``[unix time, served, 429s, other failures, tokens]``; use of the limits in the
                             last whole minute of work (``steady_minute``)
``GET /_stand_in/config``    the options as they are
``POST /_stand_in/config``   a JSON object of options to change (``{"rpm": 600, "fault": {"500": 0.1}}``), all or none;
                             400 with ``{"error"}`` says what is wrong. A changed limit starts with a full quota;
                             naming ``cool_down_s`` starts a cool-down of that length
``POST /_stand_in/reset``    forget counts and the quotas' use
``GET /_stand_in/vector``    ``?text=``, perhaps ``&dimensions=``: ``{"dimensions", "embedding"}``, base64 of
                             little-endian float32: the one right vector of the text; in Python
                             ``penstock.stand_in.vectors.vector(text, dimensions)``
"""

if __name__ != "penstock.stand_in":
    raise ImportError("import penstock.stand_in: this folder is no package of its own")
