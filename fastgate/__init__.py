"""fastgate: an API gateway with a compiled hot path, programmable in plain async Python."""

__version__ = "0.1.0"
