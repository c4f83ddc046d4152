# Paths as the configuration writes them, read into the normal form that requests are matched in.

import re
from typing import NamedTuple

cdef enum:
    MAX_ROUTE_SEGMENTS = 64         # of a template or a prefix


class PathPattern(NamedTuple):
    """A path of the configuration. segments: normal form, None for a {name}; names: of the {name}s, in order."""

    segments: tuple[bytes | None, ...]
    names: tuple[str, ...]

    @property
    def literal(self) -> bytes:
        """The whole path; only for one without {name}."""
        return b"/" + b"/".join(self.segments)


_CAPTURE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


_LITERAL = frozenset("!$%&'()*+,;=:@-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def _literal_segment(text: str) -> bytes | None:
    # The normal form of one segment; b"" for an empty one or ".", None for "..".
    if "{" in text or "}" in text:
        raise ValueError(f"{{name}} stands for a whole segment, not for part of one: {text!r}")
    raw = "".join(
        c if c in _LITERAL else "".join(f"%{byte:02X}" for byte in c.encode()) for c in text
    )
    try:
        path = parse_target(b"/x/" + raw.encode()).path
    except TargetError as error:
        raise ValueError(f"{error}: {text!r}") from None
    return None if path == b"/" else path[3:]


def parse_path_pattern(text: str) -> PathPattern:
    """Read `match.path`, `rewrite.path` or `redirect.path`, and bring it into normal form as a request's path.

    Raises ValueError for a path that no request can have.
    """
    if not text.startswith("/"):
        raise ValueError('a path begins with "/"')
    if "?" in text or "#" in text:
        raise ValueError('a path holds no "?" and no "#"')
    parts = text[1:].split("/")
    segments = []               # bytes, or a str for a {name}
    last = len(parts) - 1
    for at, part in enumerate(parts):
        capture = _CAPTURE.fullmatch(part)
        segment = capture[1] if capture is not None else _literal_segment(part)
        if segment is None and segments:
            segments.pop()
        if segment:
            segments.append(segment)
        elif at == last:
            segments.append(b"")
    names = tuple([segment for segment in segments if isinstance(segment, str)])
    if len(set(names)) < len(names):
        raise ValueError("a {name} stands twice in the path")
    if len(names) > MAX_CAPTURES:
        raise ValueError(f"more than {MAX_CAPTURES} {{name}} segments")
    if names and len(segments) > MAX_ROUTE_SEGMENTS:
        raise ValueError(f"more than {MAX_ROUTE_SEGMENTS} segments in a path with {{name}}")
    return PathPattern(tuple([None if isinstance(part, str) else part for part in segments]), names)


def parse_prefix(text: str) -> bytes:
    """Read a prefix; b"" for "/", otherwise without the trailing slash, which means nothing (as in Gateway API)."""
    pattern = parse_path_pattern(text)
    if pattern.names:
        raise ValueError("a prefix takes no {name}")
    if len(pattern.segments) > MAX_ROUTE_SEGMENTS:
        raise ValueError(f"more than {MAX_ROUTE_SEGMENTS} segments in a prefix")
    return pattern.literal.rstrip(b"/")


def parse_host_pattern(text: str) -> tuple[bool, bytes]:
    """Read one of `match.host`: (is it a wildcard, the name in lower case; for "*.b" it is b"b")."""
    wildcard = text.startswith("*.")
    try:
        target = parse_target(b"/", text[2 * wildcard:].encode())
    except (TargetError, UnicodeEncodeError) as error:
        raise ValueError(f"{text!r} is no host: {error}") from None
    if target.port is not None or not target.host or (wildcard and target.host.startswith(b"[")):
        raise ValueError(f'{text!r} is no host name; "a.b", "*.b" or an address, without port')
    return wildcard, target.host
