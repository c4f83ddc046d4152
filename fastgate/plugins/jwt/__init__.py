"""JSON Web Tokens: see docs/plugins/jwt.md."""

from fastgate.plugins.jwt.plugin import Jwt

__all__ = ["Jwt"]
