"""Aggregation, sans I/O: what is asked of upstreams for one request, and the one answer made of theirs.

proxy/gather.pyx sends what is decided here and hands back what comes.
"""
