"""The way of a metered request through the stand-in: key, account, quota, fault, answer, delivery.

Enter at ``exchange``; ``refusals`` has every "no".
"""
