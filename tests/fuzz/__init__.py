"""Fuzzing of the HTTP/1 core: both its connections over transports in memory, judged by two readers."""
