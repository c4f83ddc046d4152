"""Fuzzing of the HTTP/1 core: both connections of the gateway over transports in memory, judged by two readers."""
