"""The ``generate_image`` task: submitted once, polled until the images are there, kept where they shall be.

Enter at ``task``; ``generation`` is one generation over as many deliveries as it takes, ``record`` what is known of it
in Redis, ``store`` where images go. How a request is paced and sent is ``tasks/request``'s.
"""
