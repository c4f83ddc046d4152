"""The running gateway: configuration made ready, listeners, drain."""
