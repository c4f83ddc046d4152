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


def _literal_segment(text: str, last: bool) -> bytes:
    raw = "".join(
        c if "!" <= c <= "~" else "".join(f"%{byte:02X}" for byte in c.encode()) for c in text
    )
    if "?" in raw or "#" in raw:
        raise ValueError('a path holds no "?" and no "#"')
    if "{" in raw or "}" in raw:
        raise ValueError(f"{{name}} stands for a whole segment, not for part of one: {text!r}")
    try:
        path = parse_target(b"/" + raw.encode()).path
    except TargetError as error:
        raise ValueError(f"{error}: {text!r}") from None
    if path == b"/" and not (last and text == ""):
        raise ValueError(f"an empty or dot segment can never match: {text!r}")
    return path[1:]


def parse_path_pattern(text: str) -> PathPattern:
    """Read `match.path`, `rewrite.path` or `redirect.path`. Raises ValueError for what can never match a request."""
    if not text.startswith("/"):
        raise ValueError('a path begins with "/"')
    parts = text[1:].split("/")
    segments = []
    names = []
    for at, part in enumerate(parts):
        capture = _CAPTURE.fullmatch(part)
        if capture is None:
            segments.append(_literal_segment(part, at == len(parts) - 1))
            continue
        if capture[1] in names:
            raise ValueError(f"{{{capture[1]}}} stands twice in the path")
        names.append(capture[1])
        segments.append(None)
    if len(names) > MAX_CAPTURES:
        raise ValueError(f"more than {MAX_CAPTURES} {{name}} segments")
    if names and len(segments) > MAX_ROUTE_SEGMENTS:
        raise ValueError(f"more than {MAX_ROUTE_SEGMENTS} segments in a path with {{name}}")
    return PathPattern(tuple(segments), tuple(names))


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
