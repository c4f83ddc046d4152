"""The benchmark suite: fastgate and other gateways on the same work. See `python -m bench --help`."""
