"""``penstock demo``: a real corpus to vectors on this machine, through everything that the project is.

Enter at ``command``. ``environment`` has the broker, the stand-in and the workers that the demo runs on. The demo uses
what users use, and nothing else.
"""
