"""Wire formats: one file a service, pure, no I/O. ``penstock.config.services`` holds the table of them."""
