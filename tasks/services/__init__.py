"""Wire formats: one file (or folder) a service, over what several share in ``wire``. Pure, no I/O.

Enter at ``base``, which says what a service is. ``penstock.config.endpoints.services`` holds the table of them. A
service turns calls into requests and answers into results or a ``Refused``; it knows no lane and decides nothing.
"""
