"""``api-key``: a key in a header, a query parameter or a cookie says who the caller is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Final
from urllib.parse import unquote_plus

from fastgate.plugins import Exchange, Host, Plugin, Request, Response, doc
from fastgate.plugins._consumers import GateKeeperConfig
from fastgate.plugins._files import WatchedFile
from fastgate.plugins._keys_file import Key, KeyEntry, parse_file, read_entries

_PLACE: Final = re.compile(r"bearer|(header|query|cookie):.+")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class ApiKeyConfig(GateKeeperConfig, frozen=True, kw_only=True):
    places: Annotated[
        tuple[str, ...],
        doc(
            'Where the key may stand, tried in this order: "header:NAME", "query:NAME", "cookie:NAME", or '
            '"bearer" (Authorization: Bearer KEY).',
            one_or_many=True,
            least=1,
        ),
    ] = ("header:x-api-key",)
    keys: Annotated[tuple[KeyEntry, ...], doc("The keys.")] = ()
    file: Annotated[
        str | None,
        doc("More keys: a TOML or JSON file with `keys` as here, read again whenever it changes.", "file"),
    ] = None
    forward: Annotated[bool, doc("Leave the key in the request that the service gets.")] = False


class ApiKey(Plugin):
    """Lets in who has a key."""

    # Keys are kept and looked up as SHA-256. A look-up by digest takes its time by the digest's bytes, and
    # a caller who does not know the key cannot choose those: what the time could tell, a part of some stored
    # digest, brings nobody nearer to a key. So no comparison in constant time is needed, nor a walk over all.

    Config = ApiKeyConfig
    config: ApiKeyConfig

    _file: WatchedFile[dict[bytes, Key]] | None = None

    @classmethod
    def check(cls, config: ApiKeyConfig) -> Mapping[str, str]:
        problems = config.check_realm()
        for place in config.places:
            kind, _, name = place.partition(":")
            if not _PLACE.fullmatch(place):
                problems["places"] = (
                    f'{place!r} is none of "header:NAME", "query:NAME", "cookie:NAME", "bearer"'
                )
            elif kind in ("header", "cookie") and not _TOKEN.fullmatch(name):
                problems["places"] = f"{name!r} is no name of a {kind} (RFC 9110 5.6.2)"
        if not config.keys and config.file is None:
            problems["keys"] = "there is no key: `keys` and `file` are both missing"
        try:
            read_entries(config.keys, "")
        except ValueError as error:
            problems["keys"] = str(error)
        return problems

    @classmethod
    def identity_headers(cls, config: ApiKeyConfig) -> tuple[str, ...]:
        return config.told_in()

    async def provision(self, host: Host) -> None:
        self._clock = host.clock
        self._keys = read_entries(self.config.keys, self.name)
        scheme = "Bearer" if "bearer" in self.config.places else "ApiKey"
        self._challenge = (("www-authenticate", f'{scheme} realm="{self.config.realm}"'),)
        if self.config.file is not None:
            path = host.folder / self.config.file
            self._file = WatchedFile(host, path, self._parse)
            await self._file.open()

    def _parse(self, data: bytes) -> dict[bytes, Key]:
        assert self.config.file is not None
        found = parse_file(data, PurePath(self.config.file).suffix, self.name)
        twice = found.keys() & self._keys.keys()
        if twice:
            raise ValueError(f"the key of {found[twice.pop()].consumer.name} stands in the configuration too")
        return found

    def on_request(self, exchange: Exchange) -> Response | None:
        sent = [value for place in self.config.places for value in _values(exchange.request, place)]
        if not sent:
            return exchange.refuse(
                401, "authentication-required", "no API key in the request", headers=self._challenge
            )
        if len(set(sent)) > 1:
            # Whoever reads another of them than we did would see another caller.
            return self._failed(exchange, "two different API keys in one request")
        digest = hashlib.sha256(sent[0].encode("latin-1")).digest()
        key = self._keys.get(digest) or (self._file.value.get(digest) if self._file else None)
        if key is None:
            return self._failed(exchange, "unknown API key")
        if self._clock.now() >= key.expires:
            return self._failed(exchange, f"the API key of {key.consumer.name} has expired")
        exchange.consumer = key.consumer
        if not self.config.forward:
            for place in self.config.places:
                _remove(exchange.request, place)
        self.config.tell(exchange.request.headers, key.consumer)
        return None

    def _failed(self, exchange: Exchange, detail: str) -> Response:
        return exchange.refuse(401, "authentication-failed", detail, headers=self._challenge)


def _values(request: Request, place: str) -> list[str]:
    """Every value that stands there: not only the first, since another reader may take the last."""
    kind, _, name = place.partition(":")
    match kind:
        case "header":
            return request.headers.get_all(name)
        case "query":
            return [
                _text(value) for key, value in _parameters(request.raw_query) if unquote_plus(key) == name
            ]
        case "cookie":
            return [value for key, value, _ in _cookies(request) if key == name]
        case _:
            fields = [value.partition(" ") for value in request.headers.get_all("authorization")]
            return [key.strip(" ") for scheme, _, key in fields if scheme.lower() == "bearer"]


def _remove(request: Request, place: str) -> None:
    kind, _, name = place.partition(":")
    match kind:
        case "header":
            del request.headers[name]
        case "query":
            pieces = request.raw_query.split("&")
            kept = [piece for piece in pieces if unquote_plus(piece.partition("=")[0]) != name]
            if len(kept) < len(pieces):
                request.raw_query = "&".join(kept)
        case "cookie":
            cookies = _cookies(request)
            kept = [piece for key, _, piece in cookies if key != name]
            if len(kept) < len(cookies):
                del request.headers["cookie"]
                if kept:
                    request.headers["cookie"] = "; ".join(kept)
        case _:
            del request.headers["authorization"]


def _parameters(query: str) -> list[tuple[str, str]]:
    return [(key, value) for key, _, value in (piece.partition("=") for piece in query.split("&"))]


def _text(value: str) -> str:
    """The value's bytes as latin-1, like those of headers."""
    return unquote_plus(value, "latin-1")


def _cookies(request: Request) -> list[tuple[str, str, str]]:
    """Name, value and the whole of each."""
    pieces = [piece.strip(" \t") for field in request.headers.get_all("cookie") for piece in field.split(";")]
    parts = ((piece, *piece.partition("=")) for piece in pieces if piece)
    return [(name.rstrip(" \t"), value.lstrip(" \t"), piece) for piece, name, _, value in parts]
