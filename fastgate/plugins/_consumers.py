"""What the gate-keepers have in common: whose credentials they are, and what a 401 says."""

from __future__ import annotations

import re
from typing import Annotated, Final
from urllib.parse import quote

from fastgate.plugins import Consumer, Headers, PluginConfig, doc

SECOND: Final = 1_000_000_000

_VISIBLE: Final = bytes(byte for byte in range(0x21, 0x7F) if byte != 0x25)


class ConsumerKeys(PluginConfig, frozen=True, kw_only=True):
    """Keys of an entry that stands for a consumer."""

    plan: Annotated[str, doc("The consumer's plan: chooses among limits.")] = ""
    groups: Annotated[tuple[str, ...], doc("The consumer's groups, for `acl`.")] = ()
    scopes: Annotated[tuple[str, ...], doc("The consumer's scopes, for `acl`.")] = ()

    def to_consumer(self, name: str, source: str) -> Consumer:
        return Consumer(
            name=name,
            plan=self.plan,
            groups=frozenset(self.groups),
            scopes=frozenset(self.scopes),
            source=source,
        )


class GateKeeperConfig(PluginConfig, frozen=True, kw_only=True):
    """Keys of every gate-keeper that answers 401 and tells the service who came."""

    realm: Annotated[str, doc("What the credentials are for: named in WWW-Authenticate.")] = "api"
    consumer_header: Annotated[
        str,
        doc(
            "Request header that tells the service the consumer's name (not ASCII: percent-encoded).",
            "set-header-name",
            empty=True,
        ),
    ] = ""

    def told_in(self) -> tuple[str, ...]:
        """For ``identity_headers``."""
        return (self.consumer_header,) if self.consumer_header else ()

    def tell(self, headers: Headers, consumer: Consumer) -> None:
        """Sets ``consumer_header``. What is no visible ASCII, and "%", is percent-encoded."""
        if self.consumer_header:
            headers[self.consumer_header] = quote(consumer.name, safe=_VISIBLE)

    def check_realm(self) -> dict[str, str]:
        """For ``check``."""
        # The rest of quoted-string (RFC 9110 5.6.4) is legal, and read differently by different clients.
        if re.fullmatch(r"[ !#-\[\]-~]*", self.realm):
            return {}
        return {"realm": "a realm has printable ASCII characters without quotes and backslashes"}
