"""Routing told in words: the reference matcher and `explain`.

The compiled table is `fastgate._core.RouteTable`.
"""
