"""Hosts, ports, sockets and networks: what may stand in binds, endpoints, host patterns and CIDR lists."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final, NamedTuple

from fastgate.config.problems import quote
from fastgate.config.units import BadValue

# RFC 1123 2.1, with the underscore that real names of services carry.
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_IPV4_LIKE: Final = re.compile(r"[0-9.]+")
_ASGI: Final = re.compile(
    r"asgi:(?:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*|[\w-]+)", re.A
)
_MAX_UNIX_PATH: Final = 107  # sun_path of Linux holds 108 bytes, with the final NUL


class Address(NamedTuple):
    """``host:port``, a Unix socket, an SRV name or an application; ``host`` without brackets, empty for every
    address. scheme: "http" or "https" of what was written as a URL, which ``text`` is without."""

    text: str
    host: str
    port: int
    unix_path: str | None
    srv: str = ""
    asgi: str = ""
    scheme: str = ""


def parse_bind(text: str, options: dict[str, Any]) -> Address:
    form = 'expected "host:port", "[v6]:port", ":port" or "unix:/path"'
    if re.fullmatch(r"[0-9]+", text):
        raise BadValue(f"{form}, got {quote(text)}", f'did you mean ":{text}"?')
    if text.startswith("*:"):
        raise BadValue(f"{form}, got {quote(text)}", f"did you mean {quote(text[1:])}?")
    return _parse_address(text, form, any_host=True, least_port=0)


def parse_admin_bind(text: str, options: dict[str, Any]) -> Address:
    """An address or a Unix socket; a name would leave open who may reach it."""
    form = 'expected "127.0.0.1:port", "[::1]:port" or "unix:/path"'
    address = _parse_address(text, form, any_host=True, least_port=0)
    if address.host and not (_is_ipv6(address.host) or _IPV4_LIKE.fullmatch(address.host)):
        raise BadValue(
            f"{quote(text)} has a name, and this listens on an address",
            f'did you mean "127.0.0.1:{address.port}"?',
        )
    return address


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it; an empty host is every address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_dns_server(text: str, options: dict[str, Any]) -> str:
    """An address of a name server, with its port."""
    form = 'expected an address such as "10.0.0.2:53" or "[fd00::2]:53"'
    if _is_ipv6(text):
        return f"[{text.lower()}]:53"
    with_port = text if ":" in text and not text.endswith("]") else f"{text}:53"
    address = _parse_address(with_port, form, any_host=False, least_port=1)
    if address.unix_path is not None or not (_is_ipv6(address.host) or _IPV4_LIKE.fullmatch(address.host)):
        raise BadValue(f"{form}, got {quote(text)}: a name would need a name server itself")
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"


def parse_address(text: str, options: dict[str, Any]) -> Address:
    form = 'expected "host:port", "[v6]:port", "https://host", "unix:/path", "srv:NAME" or "asgi:module:app"'
    if text.startswith("srv:"):
        return _srv(text)
    if text.startswith("asgi:"):
        return _asgi(text)
    if text.startswith("_") and re.match(r"_[^.:]+\._[^.:]+\.[^:]+$", text):
        raise BadValue(f"{form}, got {quote(text)}", f"did you mean {quote('srv:' + text)}?")
    if match := re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", text, re.DOTALL):
        return _url(match[1], match[2], text, form)
    return _parse_address(text, form, any_host=False, least_port=1)


def _url(scheme: str, rest: str, text: str, form: str) -> Address:
    """A scheme and an authority without userinfo (RFC 3986 3), the port being the scheme's if it is missing
    (RFC 9110 4.2)."""
    if scheme not in ("http", "https"):
        lower = scheme.lower()
        if lower in ("http", "https"):
            raise BadValue(
                f"{form}, got {quote(text)}: schemes are written in lower case",
                f"did you mean {quote(f'{lower}://{rest}')}?",
            )
        raise BadValue(f'{form}, got {quote(text)}: the schemes of endpoints are "http" and "https"')
    authority, *behind = re.split(r"[/?#]", rest, maxsplit=1)
    bare = authority.rpartition("@")[2]
    if bare != rest:
        what = "path" if bare == authority else "user"
        if what == "path" and behind[0]:
            what += " (a route's `rewrite` changes paths)"
        shown = text if bare == authority else f"{scheme}://...@{bare}"
        raise BadValue(
            f"{form}, got {quote(shown)}: an endpoint has no {what}",
            f"did you mean {quote(f'{scheme}://{bare}')}?" if bare else "",
        )
    if ":" not in bare or bare.endswith("]"):
        bare += ":443" if scheme == "https" else ":80"
    return _parse_address(bare, form, any_host=False, least_port=1)._replace(scheme=scheme)


def _parse_address(text: str, form: str, *, any_host: bool, least_port: int) -> Address:
    if text.startswith("unix:"):
        return Address(text, "", 0, _unix_path(text[5:]))
    if text.startswith("/"):
        raise BadValue(f"{form}, got {quote(text)}", f"did you mean {quote('unix:' + text)}?")
    if text.startswith("["):
        inside, bracket, port = text[1:].partition("]")
        if not bracket or not port.startswith(":"):
            raise BadValue(f"{form}, got {quote(text)}")
        host, port = _ipv6(inside), port[1:]
    else:
        if text.count(":") > 1:
            hint = ""
            head, _, tail = text.rpartition(":")
            if _is_ipv6(head) and tail.isdigit():
                hint = f'did you mean "[{head}]:{tail}"?'
            raise BadValue(f"{form}, got {quote(text)}: an IPv6 address stands in brackets", hint)
        host, colon, port = text.partition(":")
        if not colon:
            raise BadValue(f"{form}, got {quote(text)}: the port is missing")
        if host or not any_host:
            check_host(host)
    if not re.fullmatch(r"[0-9]{1,5}", port) or not least_port <= int(port) <= 65_535:
        raise BadValue(f"the port must be a number between {least_port} and 65535, got {quote(port)}")
    return Address(text, host.lower(), int(port), None)


def _srv(text: str) -> Address:
    """The name of SRV records (RFC 2782): a service, a protocol and a domain."""
    name = text[4:]
    form = 'expected "srv:_service._protocol.domain", as in "srv:_http._tcp.orders.internal"'
    head, colon, port = name.rpartition(":")
    if colon:
        raise BadValue(
            f"{form}, got {quote(text)}: SRV records name the ports themselves",
            f"did you mean {quote('srv:' + head)}?" if port.isdigit() else "",
        )
    labels = name.rstrip(".").split(".")
    if len(labels) < 3 or not (labels[0][:1] == labels[1][:1] == "_"):
        raise BadValue(f"{form}, got {quote(text)}")
    check_host(name)
    return Address(text, "", 0, None, name.rstrip(".").lower())


def _asgi(text: str) -> Address:
    """An application of this process: of a module, or by the name that an embedding program gives it."""
    if not _ASGI.fullmatch(text):
        raise BadValue(f'expected "asgi:module:app" or, when embedded, "asgi:name", got {quote(text)}')
    return Address(text, "", 0, None, asgi=text[5:])


def _unix_path(path: str) -> str:
    if not path.startswith("/"):
        raise BadValue(
            f'the path of a Unix socket must be absolute, as in "unix:/run/x.sock", got {quote(path)}'
        )
    if "\0" in path or len(path.encode()) > _MAX_UNIX_PATH:
        raise BadValue(f"the path of a Unix socket holds at most {_MAX_UNIX_PATH} bytes and no NUL")
    return path


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _ipv6(text: str) -> str:
    if not _is_ipv6(text) or "%" in text:
        raise BadValue(f"{quote(text)} is not an IPv6 address")
    return text


def check_host(host: str) -> None:
    """A name (RFC 1123) or an IPv4 address."""
    if not host:
        raise BadValue("the host is missing")
    if not host.isascii():
        try:
            ascii_form = host.encode("idna").decode()
        except UnicodeError:
            raise BadValue(f"{quote(host)} is not a host: names are written in ASCII (RFC 5890)") from None
        raise BadValue(
            f"{quote(host)}: names are written in ASCII (RFC 5890)", f"did you mean {quote(ascii_form)}?"
        )
    if not _NAME.fullmatch(host) or len(host) > 253:
        raise BadValue(
            f"{quote(host)} is not a host: labels are of letters, digits and hyphens, at most 63 each"
        )
    if _IPV4_LIKE.fullmatch(host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise BadValue(f"{quote(host)} is not an IPv4 address") from None


def parse_host(text: str, options: dict[str, Any]) -> str:
    """A host without port, in lower case; an IPv6 address in brackets."""
    if text.startswith("[") and text.endswith("]"):
        _ipv6(text[1:-1])
        return text.lower()
    if _is_ipv6(text):
        raise BadValue(f"{quote(text)}: an IPv6 address stands in brackets", f'did you mean "[{text}]"?')
    scheme = re.match(r"https?://([^/:]+)", text)
    if scheme:
        raise BadValue(f"expected a host alone, got {quote(text)}", f"did you mean {quote(scheme[1])}?")
    host, colon, _port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if colon and host:
        raise BadValue(f"expected a host without port, got {quote(text)}", f"did you mean {quote(host)}?")
    check_host(text)
    return text.lower()


def parse_acme_domain(text: str, options: dict[str, Any]) -> str:
    """A DNS name of at least two labels, in lower case: what a directory gives a certificate for here."""
    if text.startswith("*."):
        raise BadValue(
            f"{quote(text)}: a wildcard needs the challenge dns-01, which is not spoken here",
            "name the hosts, or give the certificate by `certificates`",
        )
    name = parse_host(text, options)
    if name.startswith("[") or _IPV4_LIKE.fullmatch(name):
        raise BadValue(f"{quote(text)} is an address, and only names get certificates here")
    if "." not in name.rstrip("."):
        raise BadValue(f"{quote(text)} is no public name: it has only one label")
    return name.rstrip(".")


def parse_host_pattern(text: str, options: dict[str, Any]) -> str:
    """``a.b`` or ``*.b``, in lower case."""
    if text == "*":
        raise BadValue('"*" is not a host pattern', "leave `host` out to match every host")
    if text.startswith("*."):
        rest = text[2:]
        if _IPV4_LIKE.fullmatch(rest) or "*" in rest or ":" in rest or rest.count(".") > 62:
            raise BadValue(f'expected "name" or "*.name", got {quote(text)}')
        return "*." + _pattern_host(rest)
    if "*" in text:
        raise BadValue(
            f'expected "name" or "*.name", got {quote(text)}: the star stands for leading labels alone'
        )
    return _pattern_host(text)


def _pattern_host(text: str) -> str:
    host = parse_host(text, {})
    if host.endswith("."):
        raise BadValue(f"{quote(text)} ends with a dot", f"did you mean {quote(host[:-1])}?")
    return host


def parse_authority(text: str, options: dict[str, Any]) -> str:
    """A host with or without port, as the Host field carries it (RFC 9110 7.2)."""
    match = re.fullmatch(r"(.*?)(?::([0-9]{1,5}))?", text, re.DOTALL)
    host, port = (match[1], match[2]) if match else (text, None)
    if _is_ipv6(text):
        host, port = text, None
    if port is not None and not 1 <= int(port) <= 65_535:
        raise BadValue(f"the port must be a number between 1 and 65535, got {quote(port)}")
    checked = parse_host(host, {})
    return checked + (f":{port}" if port else "")


def parse_upstream_host(text: str, options: dict[str, Any]) -> str:
    """The words "client" and "endpoint", or a host to send."""
    return parse_authority(text, options)


def parse_cidr(text: str, options: dict[str, Any]) -> str:
    """A network in canonical form; a bare address counts as one of its full length."""
    if "%" in text:
        raise BadValue(f"a network has no zone, got {quote(text)}")
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise BadValue(
            f'expected a network such as "10.0.0.0/8" or "2001:db8::/32", or an address, got {quote(text)}'
        ) from None
    raise BadValue(f"{quote(text)} has bits set beyond its prefix length", f'did you mean "{network}"?')
