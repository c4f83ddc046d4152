"""Names, header fields, paths and regular expressions: what may stand in each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote_from_bytes, urlsplit

from fastgate.config.problems import did_you_mean, either, quote
from fastgate.config.units import BadValue

MAX_SEGMENT_NAMES: Final = 16  # MAX_CAPTURES of core/request.pxd
MAX_SEGMENTS: Final = 64  # MAX_ROUTE_SEGMENTS of core/route_path.pyx
NORMAL_FORM: Final = (
    "letters, digits and -._~ as they are, all else that is no path character as %XX in upper case"
)

# RFC 9110 5.6.2.
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 6265 4.1.1: a cookie's name is a token.
# RFC 9110 5.5: visible characters, spaces and tabs; new fields limit themselves to US-ASCII.
_BAD_VALUE: Final = re.compile(r"[^\t\x20-\x7e]")
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# RFC 3986 3.3: pchar without the escapes, and the slash between segments.
_PATH_CHARS: Final = _UNRESERVED | frozenset("!$&'()*+,;=:@/")
_SEGMENT_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Fields that belong to the connection or to the framing of the message (RFC 9110 7.6.1, RFC 9112 6): the
# gateway alone writes them, or a rule could split or smuggle messages.
_OWN_FIELDS: Final = {
    "connection": "it belongs to each connection (RFC 9110 7.6.1)",
    "proxy-connection": "it belongs to each connection (RFC 9110 7.6.1)",
    "keep-alive": "it belongs to each connection (RFC 9110 7.6.1)",
    "te": "it belongs to each connection (RFC 9110 7.6.1)",
    "upgrade": "it belongs to each connection (RFC 9110 7.6.1)",
    "http2-settings": "it belongs to each connection (RFC 9113)",
    "transfer-encoding": "it frames the message (RFC 9112 6)",
    "content-length": "it frames the message (RFC 9112 6)",
    "trailer": "it describes the framing of the message (RFC 9110 6.6.2)",
    "host": "it is the request's authority (RFC 9110 7.2)",
    "expect": "the gateway answers it (RFC 9110 10.1.1)",
}
_OWN_FIELD_HINTS: Final = {
    "host": "use `rewrite.host`, or `host` of the upstream",
    "upgrade": "use `upgrade` of the route",
}


def parse_text(text: str, options: dict[str, Any]) -> str:
    if not text:
        raise BadValue("expected a string that is not empty")
    return text


def parse_user(text: str, options: dict[str, Any]) -> str:
    """Whether there is such a user only the machine knows that the gateway is started on."""
    if not re.fullmatch(r"[^:\s]+(:[^:\s]+)?", text):
        raise BadValue(f'expected "user" or "user:group", got {quote(text)}')
    return text


def parse_name(text: str, options: dict[str, Any]) -> str:
    if not text:
        raise BadValue("a name must not be empty")
    if len(text) > 128:
        raise BadValue(f"a name has at most 128 characters, this one has {len(text)}")
    if not text.isprintable():
        raise BadValue(f"a name has printable characters only, got {quote(text)}")
    return text


def parse_header_name(text: str, options: dict[str, Any]) -> str:
    """Lower case, since names compare without case (RFC 9110 5.1)."""
    _check_token(text, "a header name")
    return text.lower()


def parse_set_header_name(text: str, options: dict[str, Any]) -> str:
    """As written; fields that only the gateway may write are refused."""
    _check_token(text, "a header name")
    why = _OWN_FIELDS.get(text.lower())
    if why:
        raise BadValue(
            f"{quote(text)} cannot be changed by a rule: {why}", _OWN_FIELD_HINTS.get(text.lower(), "")
        )
    return text


def parse_header_value(text: str, options: dict[str, Any]) -> str:
    # The value itself is never shown: it may be a credential that should have been a secret.
    bad = _BAD_VALUE.search(text)
    if bad:
        char = ord(bad[0])
        what = {10: "a line feed", 13: "a carriage return", 0: "a NUL"}.get(char) or (
            "a control character" if char < 0x20 or char == 0x7F else "a character beyond ASCII"
        )
        raise BadValue(
            f"a header value must not contain {what} (at character {bad.start() + 1}; RFC 9110 5.5)"
        )
    if text != text.strip(" \t"):
        raise BadValue("a header value neither begins nor ends with white space (RFC 9110 5.5)")
    if len(text) > 16_384:
        raise BadValue(f"a header value has at most 16384 characters, this one has {len(text)}")
    return text


def parse_bearer_token(text: str, options: dict[str, Any]) -> str:
    """RFC 6750 2.1, and long enough not to be guessed. The value itself is never shown."""
    if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", text):
        raise BadValue("a token has letters, digits and . _ ~ + / - alone, and = at its end (RFC 6750 2.1)")
    if not 16 <= len(text) <= 4096:
        raise BadValue(
            f"a token has 16 to 4096 characters, this one has {len(text)}",
            "make one with: openssl rand -hex 32",
        )
    return text


def parse_cookie_name(text: str, options: dict[str, Any]) -> str:
    _check_token(text, "a cookie name")
    return text


def parse_query_name(text: str, options: dict[str, Any]) -> str:
    if not text:
        raise BadValue("the name of a query parameter must not be empty")
    return text


def _check_token(text: str, what: str) -> None:
    if not _TOKEN.fullmatch(text):
        raise BadValue(
            f"{quote(text)} is not {what}: letters, digits and !#$%&'*+-.^_`|~ (RFC 9110 5.6.2)",
            f"did you mean {quote(text.rstrip(': '))}?" if _TOKEN.fullmatch(text.rstrip(": ")) else "",
        )


def parse_method(text: str, options: dict[str, Any]) -> str:
    """As written: methods compare with case (RFC 9110 9.1)."""
    upper = text.upper()
    if text != upper and upper in _METHODS:
        raise BadValue(
            f"methods are case-sensitive (RFC 9110 9.1), got {quote(text)}", f"did you mean {quote(upper)}?"
        )
    if not _TOKEN.fullmatch(text):
        near = did_you_mean(text, _METHODS)
        raise BadValue(f'expected a method such as "GET", got {quote(text)}', near)
    return text


def parse_protocol(text: str, options: dict[str, Any]) -> str:
    """A protocol of the Upgrade field, in lower case."""
    if text.lower() == "h2c":
        raise BadValue('"h2c" is not passed on: requests in it would go past every route')
    if not re.fullmatch(rf"{_TOKEN.pattern}(/{_TOKEN.pattern})?", text):
        raise BadValue(f'expected a protocol such as "websocket", got {quote(text)}')
    return text.lower()


def parse_path(text: str, options: dict[str, Any]) -> str:
    _check_path(text)
    if "{" in text or "}" in text:
        raise BadValue(f"{quote(text)}: only `path` has {{name}} segments", "write braces as %7B and %7D")
    if len(text.split("/")) - 1 > MAX_SEGMENTS:
        raise BadValue(f"a path has at most {MAX_SEGMENTS} segments")
    return text


def parse_path_template(text: str, options: dict[str, Any]) -> str:
    _check_path(text)
    names: list[str] = []
    for segment in text.split("/"):
        if "{" not in segment and "}" not in segment:
            continue
        if not (segment.startswith("{") and segment.endswith("}")):
            raise BadValue(f"a {{name}} takes a whole segment, got {quote(segment)} in {quote(text)}")
        name = segment[1:-1]
        if not _SEGMENT_NAME.fullmatch(name):
            raise BadValue(f"{quote(segment)} is not a {{name}}: a letter or _, then letters, digits and _")
        if name in names:
            raise BadValue(f"{{{name}}} stands twice in {quote(text)}")
        names.append(name)
    if len(names) > MAX_SEGMENT_NAMES:
        raise BadValue(f"a path has at most {MAX_SEGMENT_NAMES} {{name}} segments, this one has {len(names)}")
    if names and len(text.split("/")) - 1 > MAX_SEGMENTS:
        raise BadValue(f"a path with {{name}} has at most {MAX_SEGMENTS} segments")
    return text


def _check_path(text: str) -> None:
    if not text.startswith("/"):
        hint = f"did you mean {quote('/' + text)}?" if text and "://" not in text else ""
        raise BadValue(f'must start with "/", got {quote(text)}', hint)
    for char, what in (("?", "the query is no part of it"), ("#", "a request has no fragment")):
        if char in text:
            raise BadValue(
                f"{quote(text)}: a path has no {quote(char)}, {what}", f"write it as %{ord(char):02X}"
            )
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise BadValue(
            f'{quote(text)}: "%" begins an escape of two hexadecimal digits', "write a plain % as %25"
        )
    if "%00" in text or any(ord(c) < 0x20 or ord(c) == 0x7F for c in text):
        raise BadValue(f"{quote(text)} has a control character in it")
    if "\\" in text:
        raise BadValue(f"{quote(text)}: a path has no backslash", 'segments are parted by "/"')
    segments = [_normal_segment(segment) for segment in text.split("/")[1:]]
    if any(_DOT_SEGMENT.search(segment) for segment in segments) or "" in segments[:-1]:
        raise BadValue(
            f"{quote(text)}: no request has empty or dot segments, they are resolved before it is matched",
            ""
            if any(_ENCODED_SLASH.search(s) for s in segments)
            else f"did you mean {quote(_resolved(segments))}?",
        )


# "." and "..", also with path parameters and behind an encoded slash: requests with these are refused or
# resolved.
_ENCODED_SLASH: Final = re.compile("%2F|%5C")
_DOT_SEGMENT: Final = re.compile(r"(?:^|%2F|%5C)\.\.?(?:$|;|%3B|%2F|%5C)")


def _resolved(segments: list[str]) -> str:
    kept: list[str] = []
    for i, segment in enumerate(segments):
        dots = _DOT_SEGMENT.search(segment)
        if dots and ".." in segment:
            del kept[-1:]
        elif segment and not dots:
            kept.append(segment)
        if i == len(segments) - 1 and (dots or not segment):
            kept.append("")
    return "/" + "/".join(kept)


def segment_names(template: str) -> tuple[str, ...]:
    """The names of the ``{name}`` segments of a template, in order."""
    return tuple(s[1:-1] for s in template.split("/") if s.startswith("{") and s.endswith("}"))


def normal_path(path: str) -> str:
    """A valid path or template in the form to which requests are brought before they are matched."""
    return "/".join(
        part if part.startswith("{") and part.endswith("}") else _normal_segment(part)
        for part in path.split("/")
    )


def _normal_segment(segment: str) -> str:
    out = []
    for match in re.finditer(r"%[0-9A-Fa-f]{2}|.", segment, re.DOTALL):
        piece = match[0]
        if len(piece) == 3:
            char = chr(int(piece[1:], 16))
            out.append(char if char in _UNRESERVED else piece.upper())
        else:
            out.append(piece if piece in _PATH_CHARS else quote_from_bytes(piece.encode(), safe=""))
    return "".join(out)


def parse_regex(text: str, options: dict[str, Any]) -> str:
    """An RE2 expression over bytes; whoever uses it compiles it anew."""
    import re2

    if not text:
        raise BadValue("a regular expression must not be empty")
    settings = re2.Options()
    settings.encoding = re2.Options.Encoding.LATIN1
    settings.log_errors = False
    try:
        re2.compile(text.encode(), settings)
    except re2.error as error:
        reason = error.args[0] if error.args else "not understood"
        shown = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        shown = shown.removesuffix(f": {text}")
        hint = ""
        if re.search(r"\(\?(?:=|!|<=|<!)|\\[1-9]", text):
            hint = "RE2 has no look-around and no back references"
        raise BadValue(f"{quote(text)} is not an RE2 expression: {quote(shown)[1:-1]}", hint) from None
    return text


def parse_jmespath(text: str, options: dict[str, Any]) -> str:
    """A JMESPath expression; whoever uses it compiles it anew."""
    from fastgate.aggregation.expressions import Expression

    return Expression(text).text


def parse_rate_key(text: str, options: dict[str, Any]) -> str:
    return _parse_key(text, ("client-ip", "consumer", "global"), ("header", "cookie", "path"))


def parse_hash_key(text: str, options: dict[str, Any]) -> str:
    return _parse_key(text, ("client-ip", "consumer"), ("header", "cookie", "path", "query"))


def parse_split_key(text: str, options: dict[str, Any]) -> str:
    return _parse_key(text, ("client-ip", "consumer"), ("header", "cookie"))


def _parse_key(text: str, plain: tuple[str, ...], named: tuple[str, ...]) -> str:
    """One of the words ``plain``, or "KIND:NAME" with a kind of ``named``."""
    kind, colon, name = text.partition(":")
    forms = tuple(f"{one}:NAME" for one in named)
    if not colon:
        if text in plain:
            return text
        hint = f'did you mean "{text}:NAME"?' if text in named else did_you_mean(text, (*plain, *forms))
        # "global" stands last, being of another kind than the rest.
        words = sorted((*plain, *forms), key=lambda word: word == "global")
        raise BadValue(f"expected {either(words)}, got {quote(text)}", hint)
    if kind not in named:
        near = did_you_mean(kind, named).replace('"?', f':{quote(name)[1:-1]}"?')
        raise BadValue(f"expected {either(forms)}, got {quote(text)}", near)
    if kind == "header":
        return f"header:{parse_header_name(name, {})}"
    if kind == "cookie":
        return f"cookie:{parse_cookie_name(name, {})}"
    if kind == "query":
        return f"query:{parse_query_name(name, {})}"
    if not _SEGMENT_NAME.fullmatch(name):
        hint = f'did you mean "path:{name[1:-1]}"?' if _SEGMENT_NAME.fullmatch(name[1:-1]) else ""
        raise BadValue(f"{quote(name)} is not the name of a {{name}} segment", hint)
    return text


def parse_cookie_path(text: str, options: dict[str, Any]) -> str:
    """The Path of a cookie, in which a semicolon would begin the next attribute (RFC 6265 4.1.1)."""
    if ";" in text:
        raise BadValue(f"{quote(text)}: the path of a cookie has no semicolon (RFC 6265 4.1.1)")
    return parse_path(text, options)


def parse_endpoints_file(text: str, options: dict[str, Any]) -> str:
    if not text.endswith((".json", ".toml")):
        raise BadValue(f"expected a file whose name ends with .json or .toml, got {quote(text)}")
    return parse_file(text, options)


def parse_redis_url(text: str, options: dict[str, Any]) -> str:
    wanted = 'expected "redis://HOST:PORT/DATABASE" or "unix:/path"'
    parts = urlsplit(text)
    if "@" in text:
        raise BadValue(f"{wanted} without credentials: `username` and `password` have their own keys")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
        return text
    database = parts.path.strip("/")
    if (
        parts.scheme != "redis"
        or not parts.hostname
        or port == 0
        or not (database.isdecimal() or not database)
    ):
        raise BadValue(f"{wanted}, got {quote(text)}")
    return text


def parse_otlp_url(text: str, options: dict[str, Any]) -> str:
    """With its path: where the text has none it is that of OTLP/HTTP."""
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = 0
    plain = not (set(text) & set(" @?#\\") or any(ord(c) < 33 or ord(c) > 126 for c in text))
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not plain:
        raise BadValue(
            f'expected "http://HOST:PORT" or "https://HOST", with or without a path, got {quote(text)}',
            "credentials go into `headers`" if "@" in text else "",
        )
    return text if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}/v1/traces"


def parse_https_url(text: str, options: dict[str, Any]) -> str:
    """RFC 8555 6.1: a directory is spoken with over https only."""
    try:
        parts = urlsplit(text)
        sound = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.fragment or "@" in parts.netloc or any(c <= " " or c > "~" for c in text):
        hint = f"did you mean {quote('https' + text[4:])}?" if text.startswith("http://") else ""
        raise BadValue(f'expected a URL such as "https://host/directory", got {quote(text)}', hint)
    return text


def parse_email(text: str, options: dict[str, Any]) -> str:
    """What a mailto URL of one address takes (RFC 8555 7.3)."""
    if not re.fullmatch(r"[^@\s,:?%&]+@[^@\s,:?%&]+", text) or not text.isprintable():
        hint = (
            "did you mean " + quote(text.removeprefix("mailto:")) + "?" if text.startswith("mailto:") else ""
        )
        raise BadValue(f"expected one email address, got {quote(text)}", hint)
    return text


def parse_log_path(text: str, options: dict[str, Any]) -> str:
    if not text or "\0" in text:
        raise BadValue('expected "stdout", "stderr" or the path of a file')
    return text


def parse_log_format(text: str, options: dict[str, Any]) -> str:
    """ "json", or a template that the access log itself understands."""
    if text == "json":
        return text
    from fastgate import _core

    try:
        _core.parse_log_format(text)
    except ValueError as error:
        named = re.search(r"no field \$(\w+)", str(error))
        if named:
            raise BadValue(
                f"no field is named ${named[1]}", _field_hint(named[1], _core.ACCESS_LOG_FIELDS)
            ) from None
        if "$" not in text:
            raise BadValue(
                f'expected "json" or a template of $names, got {quote(text)}', did_you_mean(text, ("json",))
            ) from None
        raise BadValue(f'expected "json" or a template of $names: {error}') from None
    return text


def _field_hint(name: str, known: Iterable[str]) -> str:
    near = did_you_mean(name, known)
    return (
        near.replace('"', "$", 1).replace('"', "")
        if near
        else f"there is {', '.join('$' + k for k in known)}"
    )


def parse_file(text: str, options: dict[str, Any]) -> str:
    if not text or "\0" in text:
        raise BadValue("expected the path of a file")
    return text


def parse_include(text: str, options: dict[str, Any]) -> str:
    if "**" in text:
        raise BadValue(f"** is not understood, got {quote(text)}", "name each folder, or write */*.toml")
    return parse_file(text, options)
