"""Types of the compiled module."""

from typing import NamedTuple

class ReasonInfo(NamedTuple):
    code: str
    status: int
    proxy_error: str
    source: str
    retryable: bool
    cause: str
    remedy: str

REASONS: tuple[ReasonInfo, ...]
