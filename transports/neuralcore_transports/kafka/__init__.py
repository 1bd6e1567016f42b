"""``kafka://``: not there yet; these are its parts that need no broker.

::

    window.py    what a group has settled of a partition, out of order      runs.py    sets of offsets
    topics.py    channels and topics, both ways
"""
