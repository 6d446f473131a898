"""Parts of wire formats that several services share: bodies, answers, streams, headers, refusals. Pure.

Enter from a service's own file. Nothing here knows which service it is used by.
"""
