"""``basic``: user and password of RFC 7617."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import secrets
from collections.abc import Mapping
from typing import Annotated, Final, NamedTuple

from fastgate.plugins import Busy, Consumer, Exchange, Host, Plugin, Response, Secret, doc
from fastgate.plugins._consumers import SECOND, ConsumerKeys, GateKeeperConfig
from fastgate.plugins._files import WatchedFile
from fastgate.plugins._passwords import (
    BCRYPT_MAX_BYTES,
    check_hash,
    check_name,
    fits,
    has_controls,
    is_bcrypt,
    parse_htpasswd,
    stand_in,
)
from fastgate.plugins._ttl import TtlCache

_MAX_USER: Final = 256
_MAX_PASSWORD: Final = 1024
_CACHED: Final = 10_000


class User(ConsumerKeys, frozen=True, kw_only=True):
    """A user and the hash of the password."""

    name: Annotated[str, doc("As the client sends it.", "name")]
    hash: Annotated[str | Secret, doc("argon2id or bcrypt hash of the password.")]
    consumer: Annotated[str, doc("The consumer's name.", default="the user's name")] = ""


class BasicConfig(GateKeeperConfig, frozen=True, kw_only=True):
    users: Annotated[tuple[User, ...], doc("The users.")] = ()
    file: Annotated[
        str | None,
        doc("More users: a file with lines `user:hash`, read again whenever it changes.", "file"),
    ] = None
    cache_ttl: Annotated[
        int,
        doc('How long a password that was right is not hashed again; "0s": never remembered.', "duration"),
    ] = 60 * SECOND
    forward: Annotated[bool, doc("Leave Authorization in the request that the service gets.")] = False


class _Known(NamedTuple):
    hash: str
    consumer: Consumer


class _Users(NamedTuple):
    """hashes: all of them, for whom there is no user."""

    by_name: dict[str, _Known]
    hashes: tuple[str, ...]


class Basic(Plugin):
    """Lets in who knows a password (RFC 7617)."""

    # Hashing costs some 50 ms and 64 MiB on purpose, so it runs in the gateway's bounded threads, once for
    # requests that come together with the same credentials, and not at all while these are remembered.

    Config = BasicConfig
    config: BasicConfig

    _file: WatchedFile[_Users] | None = None

    @classmethod
    def check(cls, config: BasicConfig) -> Mapping[str, str]:
        problems = config.check_realm()
        if not config.users and config.file is None:
            problems["users"] = "there is no user: `users` and `file` are both missing"
        seen = set()
        for user in config.users:
            problem = check_name(user.name) or check_hash(_text(user.hash))
            if problem or user.name in seen:
                problems["users"] = f"user {user.name!r}: {problem or 'is listed twice'}"
            seen.add(user.name)
        return problems

    @classmethod
    def identity_headers(cls, config: BasicConfig) -> tuple[str, ...]:
        return config.told_in()

    async def provision(self, host: Host) -> None:
        self._host = host
        self._cache = TtlCache[bytes, str](self.config.cache_ttl / SECOND, _CACHED)
        self._running: dict[tuple[bytes, str], asyncio.Task[bool]] = {}
        self._key = secrets.token_bytes(32)
        # RFC 7617 2.1.
        self._challenge = (("www-authenticate", f'Basic realm="{self.config.realm}", charset="UTF-8"'),)
        own = {user.name: self._known(user) for user in self.config.users}
        self._own = await host.in_thread(self._users, own)
        if self.config.file is not None:
            self._file = WatchedFile(host, host.folder / self.config.file, self._parse)
            await self._file.open()

    def close(self) -> None:
        for task in self._running.values():
            task.cancel()

    def _known(self, user: User) -> _Known:
        return _Known(_text(user.hash), user.to_consumer(user.consumer or user.name, self.name))

    def _users(self, users: dict[str, _Known]) -> _Users:
        """May hash, and is called in a thread."""
        return _Users(users, tuple(known.hash for known in users.values()) or (stand_in(),))

    def _parse(self, data: bytes) -> _Users:
        users = dict(self._own.by_name)
        for name, hashed in parse_htpasswd(data).items():
            if name in users:
                raise ValueError(f"the user {name!r} stands in the configuration too")
            users[name] = _Known(hashed, Consumer(name=name, source=self.name))
        return self._users(users)

    async def on_request(self, exchange: Exchange) -> Response | None:
        fields = exchange.request.headers.get_all("authorization")
        if not any(field.split(" ", 1)[0].lower() == "basic" for field in fields):
            return exchange.refuse(
                401, "authentication-required", "no Basic credentials", headers=self._challenge
            )
        if len(fields) > 1:
            return self._failed(exchange, "two Authorization fields")
        try:
            user, password = _credentials(fields[0])
        except ValueError as error:
            return self._failed(exchange, str(error))
        users = self._file.value if self._file else self._own
        known = users.by_name.get(user)
        hashed = known.hash if known else self._stand_in(user, users.hashes)
        if is_bcrypt(hashed) and len(password) > BCRYPT_MAX_BYTES:
            return self._failed(exchange, f"a password of more than bcrypt's {BCRYPT_MAX_BYTES} bytes")
        # No user has a colon: the two can't be mixed up.
        digest = hashlib.blake2b(b"%b:%b" % (user.encode(), password), key=self._key).digest()
        now = self._host.clock.monotonic()
        if known is None or self._cache.get(digest, now) != known.hash:
            try:
                right = await self._fits(digest, hashed, password)
            except Busy:
                return exchange.refuse(
                    503, "authentication-unavailable", "too many passwords wait to be hashed",
                    headers=(("retry-after", "1"),),
                )  # fmt: skip
            if known is None:
                return self._failed(exchange, "unknown user")
            if not right:
                return self._failed(exchange, f"wrong password of {user!r}")
            self._cache.put(digest, known.hash, now)
        exchange.consumer = known.consumer
        if not self.config.forward:
            del exchange.request.headers["authorization"]
        self.config.tell(exchange.request.headers, known.consumer)
        return None

    def _stand_in(self, user: str, hashes: tuple[str, ...]) -> str:
        """What the password of an unknown user is compared with, for nothing: the hash of some user, always
        the same one for a name, so that neither time nor behaviour tells who exists."""
        chosen = int.from_bytes(hashlib.blake2b(user.encode(), key=self._key, digest_size=8).digest(), "big")
        return hashes[chosen % len(hashes)]

    async def _fits(self, digest: bytes, hashed: str, password: bytes) -> bool:
        here = (digest, hashed)
        task = self._running.get(here)
        if task is None:
            task = asyncio.ensure_future(self._host.in_thread(fits, hashed, password))
            self._running[here] = task

            def over(done: asyncio.Task[bool]) -> None:
                del self._running[here]
                if not done.cancelled():
                    done.exception()  # every request that waited for it may be gone

            task.add_done_callback(over)
        # A client that leaves does not take the answer from the others.
        return await asyncio.shield(task)

    def _failed(self, exchange: Exchange, detail: str) -> Response:
        return exchange.refuse(401, "authentication-failed", detail, headers=self._challenge)


def _text(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


def _credentials(field: str) -> tuple[str, bytes]:
    """User and password. Raises ValueError, which says what is wrong and shows neither."""
    text = field.partition(" ")[2].strip(" ")
    if len(text) > (_MAX_USER + _MAX_PASSWORD + 1) * 4 // 3 + 4:
        raise ValueError("oversized credentials")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the credentials are no base64") from None
    # Several texts decode to the same bytes; one of them is canonical (RFC 4648 3.5).
    if base64.b64encode(raw).decode() != text:
        raise ValueError("the credentials are no canonical base64")
    try:
        pair = raw.decode()
    except UnicodeDecodeError:
        raise ValueError("the credentials are not UTF-8") from None
    user, colon, password = pair.partition(":")
    if not colon:
        raise ValueError("the credentials have no colon")
    if has_controls(pair):
        raise ValueError("a control character in the credentials (RFC 7617 2)")
    if len(user.encode()) > _MAX_USER or len(password.encode()) > _MAX_PASSWORD:
        raise ValueError("oversized credentials")
    return user, password.encode()
