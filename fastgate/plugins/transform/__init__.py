"""Changes requests and answers: headers, query parameters, JSON bodies by path."""

from fastgate.plugins.transform.plugin import Transform

__all__ = ["Transform"]
