"""Endpoints that fail under load, and what clients see of it. See `python -m bench.resilience --help`."""
