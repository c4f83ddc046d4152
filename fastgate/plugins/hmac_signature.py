"""``hmac``: HTTP message signatures (RFC 9421), by shared secrets and by public keys."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Annotated, Final, NamedTuple

from fastgate.plugins import Consumer, Exchange, Headers, Host, Plugin, Response, doc
from fastgate.plugins._consumers import SECOND, GateKeeperConfig
from fastgate.plugins._signature_base import COVERS, SignatureError, is_component, signature_base
from fastgate.plugins._signature_keys import SigningKey, Verify, check_key, verifier
from fastgate.plugins._structured import (
    FieldError,
    InnerList,
    Item,
    Parameters,
    parse_dictionary,
    write_member,
)

_DIGESTS: Final = {"sha-256": "sha256", "sha-512": "sha512"}  # RFC 9530 5: the active ones
_MAX_NONCE: Final = 256


class HmacConfig(GateKeeperConfig, frozen=True, kw_only=True):
    keys: Annotated[dict[str, SigningKey], doc("The keys, by the `keyid` of their signatures.", names="name")]
    components: Annotated[
        tuple[str, ...],
        doc(
            'What a signature must cover, derived components and fields in lower case. "@target-uri" stands '
            'for "@scheme", "@authority", "@path" and "@query", "@request-target" for the last two.'
        ),
    ] = ("@method", "@authority", "@path", "@query")
    require_digest: Annotated[
        bool, doc("A request with a body must have `content-digest` (RFC 9530), and its signature cover it.")
    ] = True
    max_age: Annotated[int, doc("How old a signature's `created` may be.", "duration", minimum=SECOND)] = (
        300 * SECOND
    )
    leeway: Annotated[int, doc("How far the clocks of client and gateway may differ.", "duration")] = (
        5 * SECOND
    )
    require_nonce: Annotated[
        bool,
        doc("A signature must have a `nonce`, and each counts once for a key: nothing is played twice."),
    ] = False
    tag: Annotated[str, doc("The signature's `tag`; empty: any, or none.")] = ""
    body_limit: Annotated[int, doc("A body up to this is held to compare its digest.", "size")] = 1 << 20


class _Key(NamedTuple):
    algorithm: str
    verify: Verify
    consumer: Consumer


class _Signed(NamedTuple):
    key_id: str
    key: _Key
    covered: InnerList
    signature: bytes


class HmacSignature(Plugin):
    """Lets in what was signed with a known key (HTTP message signatures, RFC 9421)."""

    Config = HmacConfig
    config: HmacConfig

    @classmethod
    def check(cls, config: HmacConfig) -> Mapping[str, str]:
        problems = config.check_realm()
        if not config.keys:
            problems["keys"] = "there is no key"
        for name, key in config.keys.items():
            if problem := check_key(key):
                problems["keys"] = f"{name!r}: {problem}"
        for component in config.components:
            if not is_component(component):
                problems["components"] = f"{component!r} is no component of a request in lower case"
        return problems

    @classmethod
    def identity_headers(cls, config: HmacConfig) -> tuple[str, ...]:
        return config.told_in()

    async def provision(self, host: Host) -> None:
        self._clock = host.clock
        self._shared = host.shared  # its own, also where any-of asks it
        self._max_age = self.config.max_age / SECOND
        self._leeway = self.config.leeway / SECOND
        self._keys = {}
        for name, key in self.config.keys.items():
            try:
                verify = await host.in_thread(verifier, key, host.folder)
            except ValueError as error:
                raise ValueError(f"key {name!r}: {error}") from None
            consumer = key.to_consumer(key.consumer or name, self.name)
            self._keys[name] = _Key(key.algorithm, verify, consumer)
        wanted = InnerList(tuple(Item(name, {}) for name in self.config.components), {"created": True})
        # RFC 9421 5.1 says in a field of its own what a signature must cover.
        self._challenge = (
            ("www-authenticate", f'Signature realm="{self.config.realm}"'),
            ("accept-signature", f"sig1={write_member(wanted)}"),
        )

    async def on_request(self, exchange: Exchange) -> Response | None:
        headers = exchange.request.headers
        if "signature" not in headers and "signature-input" not in headers:
            return exchange.refuse(
                401, "authentication-required", "no signature in the request", headers=self._challenge
            )
        try:
            signed = self._find(headers)
            self._check_parameters(signed)
            self._check_coverage(exchange, signed.covered)
            if not signed.key.verify(signature_base(exchange.request, signed.covered), signed.signature):
                raise SignatureError("the signature does not fit")
            # Only for those who have signed: a body is held, and a nonce remembered.
            await self._check_digest(exchange, signed.covered)
            await self._check_nonce(signed)
        except (FieldError, SignatureError) as error:
            return exchange.refuse(401, "authentication-failed", str(error), headers=self._challenge)
        exchange.consumer = signed.key.consumer
        self.config.tell(headers, signed.key.consumer)
        return None

    def _find(self, headers: Headers) -> _Signed:
        """The one signature by a key of ours. Others, of proxies or for other services, may be there."""
        inputs = parse_dictionary(", ".join(headers.get_all("signature-input")))
        signatures = parse_dictionary(", ".join(headers.get_all("signature")))
        found = []
        for label, covered in inputs.items():
            if not isinstance(covered, InnerList):
                raise SignatureError(f"signature-input: {label} is no inner list")
            name = _text(covered.params, "keyid")
            key = self._keys.get(name)
            if key and (not self.config.tag or _text(covered.params, "tag") == self.config.tag):
                found.append((label, name, key, covered))
        if len(found) != 1:
            raise SignatureError(f"{len(found)} signatures by known keys, not one")
        label, name, key, covered = found[0]
        signature = signatures.get(label)
        if not isinstance(signature, Item) or not isinstance(signature.value, bytes):
            raise SignatureError(f"signature: {label} is missing or no byte sequence")
        return _Signed(name, key, covered, signature.value)

    def _check_parameters(self, signed: _Signed) -> None:
        """RFC 9421 2.3 and 3.2."""
        params = signed.covered.params
        if "alg" in params and _text(params, "alg") != signed.key.algorithm:
            raise SignatureError("alg is another than the key's algorithm")
        now = self._clock.now()
        created = _time(params, "created")
        if created is None:
            raise SignatureError("no created")
        if created > now + self._leeway:
            raise SignatureError("created lies in the future")
        if created < now - self._max_age - self._leeway:
            raise SignatureError("created is older than max_age")
        expires = _time(params, "expires")
        if expires is not None and expires <= now - self._leeway:
            raise SignatureError("the signature has expired")
        if self.config.require_nonce and not 0 < len(_text(params, "nonce")) <= _MAX_NONCE:
            raise SignatureError(f"no nonce, or one of more than {_MAX_NONCE} characters")

    def _check_coverage(self, exchange: Exchange, covered: InnerList) -> None:
        names = {item.value for item in covered.items if not item.params}
        for whole, parts in COVERS.items():
            if whole in names:
                names |= parts
        wanted = set(self.config.components)
        if self.config.require_digest and exchange.request.has_body:
            wanted.add("content-digest")
        if missing := sorted(wanted - names):
            raise SignatureError(f"not covered: {', '.join(missing)}")

    async def _check_digest(self, exchange: Exchange, covered: InnerList) -> None:
        """RFC 9530 2 and 3: a signed digest is worth something only if the body has it."""
        if all(item.value != "content-digest" for item in covered.items):
            return
        request = exchange.request
        given = parse_dictionary(", ".join(request.headers.get_all("content-digest")))
        known = {name: member for name, member in given.items() if name in _DIGESTS}
        if not known:
            raise SignatureError("content-digest has neither sha-256 nor sha-512")
        body = await request.read(self.config.body_limit) if request.has_body else b""
        for name, member in known.items():
            digest = hashlib.new(_DIGESTS[name], body).digest()
            value = member.value if isinstance(member, Item) else None
            if not isinstance(value, bytes) or not hmac.compare_digest(value, digest):
                raise SignatureError(f"content-digest: {name} is not that of the body")

    async def _check_nonce(self, signed: _Signed) -> None:
        if not self.config.require_nonce:
            return
        nonce = _text(signed.covered.params, "nonce")
        # The id goes first and has its length with it: no two pairs make one key.
        digest = hashlib.sha256(f"{len(signed.key_id)}:{signed.key_id}{nonce}".encode()).hexdigest()
        # As long as any signature may live; one from the future lives longest.
        ttl = self._max_age + 2 * self._leeway + 1
        if not await self._shared.set_if_absent(f"nonce:{digest}", b"1", ttl):
            raise SignatureError("the nonce was used before: a replay")


def _text(params: Parameters, name: str) -> str:
    """ "" where there is none."""
    value = params.get(name, "")
    if type(value) is not str:
        raise SignatureError(f"{name} is no string")
    return value


def _time(params: Parameters, name: str) -> int | None:
    value = params.get(name)
    if value is not None and type(value) is not int:
        raise SignatureError(f"{name} is no integer")
    return value
