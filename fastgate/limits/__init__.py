"""Limits that replicas share: decisions by Redis, on connections of the gateway's own."""
