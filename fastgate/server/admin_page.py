"""The page of the admin listener: one file, with a policy that lets nothing else in."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib import resources
from typing import Final, NamedTuple

from fastgate.server.admin_types import Reply

__all__ = ["page"]

_INLINE: Final = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


class _Page(NamedTuple):
    body: bytes
    etag: str
    policy: str


def page(if_none_match: str) -> Reply:
    """200, or 304 for a browser that has it. It holds nothing that needs a token, and asks for one itself."""
    found = _page()
    headers = (
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Security-Policy", found.policy),
        ("Cache-Control", "no-cache"),
        ("ETag", found.etag),
    )
    if found.etag in [one.strip() for one in if_none_match.split(",")]:
        return Reply(304, headers=headers)
    return Reply(200, found.body, headers)


@functools.cache
def _page() -> _Page:
    text = resources.files("fastgate.server").joinpath("page.html").read_text("utf-8")
    # CSP 3, 6.6.2.2: an inline script or style runs whose digest is named, and no other.
    sources: dict[str, list[str]] = {"script": [], "style": []}
    for kind, inline in _INLINE.findall(text):
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        sources[kind].append(f"'sha256-{digest}'")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(sources['script'])}",
            f"style-src {' '.join(sources['style'])}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    )
    body = text.encode()
    return _Page(body, f'"{hashlib.sha256(body).hexdigest()[:20]}"', policy)
