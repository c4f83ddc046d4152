"""One question to DNS, or to the hosts file: asked without blocking, answered within bounds.

dnspython does the wire, the order of name servers and search domains, and truncation (UDP, then TCP); it
ignores datagrams from another address, with another id or question, and those that are no DNS message (RFC
5452). Here is the policy: which names never reach DNS, how long is asked, and which answers are fit for use.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.query
import dns.rdatatype
import dns.resolver

from fastgate.upstreams.records import Answer, DnsFailure, RecordType, Service
from fastgate.upstreams.source import is_ip

__all__ = ["MAX_ANSWERS", "DnsSettings", "DnsTable", "Resolver"]

T = TypeVar("T")

_NS: Final = 1e9
MAX_ANSWERS: Final = 256
# dnspython takes some 15 us for a record, on the loop: this bounds what an answer over TCP (up to 64 KiB) can
# cost.
MAX_TCP_BYTES: Final = 16_384
# What DNS flag day 2020 recommends: answers that no path fragments.
_UDP_BYTES: Final = 1232
_PARALLEL: Final = 32
_LONGEST_LOOKUP: Final = 30.0
_HOSTS_SECONDS: Final = 5.0
_HOSTS_BYTES: Final = 4 << 20
_TARGET: Final = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)+")


class DnsTable(Protocol):
    """The table `dns` of the configuration: servers as "10.0.0.2:53" or "[fd00::2]:53", times in
    nanoseconds."""

    @property
    def servers(self) -> Sequence[str]: ...
    @property
    def timeout(self) -> int: ...
    @property
    def min_ttl(self) -> int: ...
    @property
    def max_ttl(self) -> int: ...


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """How DNS is asked. Times in seconds.

    servers: (IP address, port) of name servers; empty: those of resolv.conf. timeout: for one try at one
    server. A look-up asks each server up to twice and lasts at most 30 s. min_ttl, max_ttl: bounds of what a
    record's TTL is taken for. resolv_conf: its search domains, `ndots` and `rotate` hold in any case.
    """

    servers: tuple[tuple[str, int], ...] = ()
    timeout: float = 2.0
    min_ttl: float = 1.0
    max_ttl: float = 300.0
    resolv_conf: str = "/etc/resolv.conf"
    hosts: str = "/etc/hosts"

    @classmethod
    def of(cls, table: DnsTable) -> DnsSettings:
        servers = (server.rpartition(":") for server in table.servers)
        return cls(
            tuple((host.strip("[]"), int(port)) for host, _, port in servers),
            table.timeout / _NS,
            table.min_ttl / _NS,
            table.max_ttl / _NS,
        )


class Resolver:
    """Asks. Keeps nothing but the contents of resolv.conf and the hosts file, read anew when they have
    changed."""

    def __init__(self, settings: DnsSettings) -> None:
        self.settings = settings
        self._hosts = _Changing(settings.hosts, _read_hosts)
        self._servers = _Changing(settings.resolv_conf, self._configured)
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def addresses(self, name: str, kind: RecordType) -> Answer[str]:
        """IPv4 ("A") or IPv6 addresses of a name, numerically sorted. Raises DnsFailure.

        Like getaddrinfo: what the hosts file names is not asked of DNS, in neither family. `localhost` and
        names under it are the loopback addresses (RFC 6761 6.3), also those that the hosts file leaves out.
        """
        local = self._local(name.rstrip(".").lower(), kind)
        if local is not None:
            if not local:
                raise DnsFailure(f"the hosts file has no {_shown(kind)} address for it", absent=True)
            return self._answer(local, _HOSTS_SECONDS, "")
        records, ttl = await self._ask(name, kind)
        found: set[str] = {record.address for record in records}
        fit = {address for address in found if _is_fit(address)}
        note = f"{', '.join(sorted(found - fit)[:3])}: no address to connect to" if fit != found else ""
        if not fit:
            raise DnsFailure(note, absent=True)
        return self._answer(sorted(fit, key=lambda text: ipaddress.ip_address(text).packed), ttl, note)

    async def services(self, name: str) -> Answer[Service]:
        """SRV records of a name, by priority and target. Raises DnsFailure."""
        records, ttl = await self._ask(name, "SRV")
        return self._answer(*_services(records, ttl))

    def _answer(self, values: Iterable[T], ttl: float, note: str) -> Answer[T]:
        kept = tuple(values)
        if len(kept) > MAX_ANSWERS:
            note = f"{len(kept)} records, the first {MAX_ANSWERS} are used"
        settings = self.settings
        return Answer(kept[:MAX_ANSWERS], min(max(ttl, settings.min_ttl), settings.max_ttl), note)

    # -- the hosts file

    def _local(self, name: str, kind: RecordType) -> list[str] | None:
        """Addresses that need no DNS; None: ask it."""
        found = self._hosts.get().get(name)
        loopback = name == "localhost" or name.endswith(".localhost")
        if found is None and not loopback:
            return None
        of_kind = [address for address in found or () if (":" in address) == (kind == "AAAA")]
        if loopback and not of_kind:
            of_kind = ["::1" if kind == "AAAA" else "127.0.0.1"]
        return of_kind

    # -- DNS

    async def _ask(self, name: str, kind: Literal["A", "AAAA", "SRV"]) -> tuple[list[Any], float]:
        async with self._slots:
            try:
                resolver = self._servers.get()
                lifetime = resolver.lifetime
                # dnspython reckons with the wall clock: where that is set back, the loop's clock ends the
                # look-up.
                async with asyncio.timeout(lifetime + 1.0):
                    answer = await resolver.resolve(
                        name, kind, search=True, backend=dns.asyncbackend.get_backend("asyncio")
                    )
            except dns.resolver.NXDOMAIN:
                raise DnsFailure("NXDOMAIN: there is no such name", absent=True) from None
            except dns.resolver.NoAnswer:
                raise DnsFailure(f"the name has no {kind} record", absent=True) from None
            except (dns.resolver.NoNameservers, dns.resolver.LifetimeTimeout) as error:
                raise DnsFailure(_what_servers_did(error)) from None
            except dns.resolver.NoResolverConfiguration:
                raise DnsFailure(f"{self.settings.resolv_conf} names no name server") from None
            except TimeoutError:
                raise DnsFailure(f"no answer within {lifetime:g} s") from None
            except (dns.exception.DNSException, OSError, ValueError) as error:
                raise DnsFailure(f"{type(error).__name__}: {error}") from None
        return list(answer), float(answer.chaining_result.minimum_ttl)

    def _configured(self, path: str) -> dns.asyncresolver.Resolver:
        """Raises DNSException or ValueError, where the file names no server and the settings don't either."""
        settings = self.settings
        resolver = dns.asyncresolver.Resolver(configure=False)
        try:
            resolver.read_resolv_conf(path)
        except (dns.exception.DNSException, ValueError):
            if not settings.servers:
                raise
        asked = settings.servers or [(str(server), 53) for server in resolver.nameservers[:3]]
        resolver.nameservers = [_Server(address, port) for address, port in asked]
        resolver.use_edns(0, 0, _UDP_BYTES)
        resolver.timeout = settings.timeout
        resolver.lifetime = min(2 * settings.timeout * len(asked), _LONGEST_LOOKUP)
        resolver.cache = None
        return resolver


class _Server(dns.nameserver.Do53Nameserver):
    """A name server whose answers over TCP have a bound."""

    async def async_query(
        self,
        request: dns.message.QueryMessage,
        timeout: float,  # noqa: ASYNC109  # dnspython's signature
        source: str | None,
        source_port: int,
        max_size: bool,
        backend: Any,
        one_rr_per_rrset: bool = False,
        ignore_trailing: bool = False,
    ) -> dns.message.Message:
        if not max_size:
            return await super().async_query(
                request, timeout, source, source_port, max_size, backend, one_rr_per_rrset, ignore_trailing
            )
        try:
            async with asyncio.timeout(timeout):
                wire = await self._over_tcp(request.to_wire(prepend_length=True))
        except TimeoutError:
            raise dns.exception.Timeout(timeout=timeout) from None  # type: ignore[no-untyped-call]
        response = dns.message.from_wire(wire)
        if not request.is_response(response):
            raise dns.query.BadResponse
        return response

    async def _over_tcp(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(self.address, self.port, limit=MAX_TCP_BYTES)
        try:
            writer.write(request)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            if length > MAX_TCP_BYTES:
                raise OSError(f"an answer of {length} bytes, more than {MAX_TCP_BYTES}")
            return await reader.readexactly(length)
        finally:
            writer.transport.abort()


def _services(records: Iterable[Any], ttl: float) -> tuple[list[Service], float, str]:
    found: set[Service] = set()
    unfit: set[str] = set()
    for record in records:
        target = record.target.to_text()
        if target == ".":
            unfit.add("the service is said to be not available here (RFC 2782)")
        elif not _TARGET.fullmatch(target) or is_ip(target[:-1]):
            unfit.add(f"{target[:80]} is no host name")
        elif record.port == 0:
            unfit.add(f"{target[:80]} has port 0")
        else:
            found.add(Service(record.priority, target.lower(), record.port, record.weight))
    note = ", ".join(sorted(unfit)[:3])
    if not found:
        raise DnsFailure(note, absent=True)
    return sorted(found), ttl, note


def _what_servers_did(error: dns.resolver.NoNameservers | dns.resolver.LifetimeTimeout) -> str:
    """One short clause for each server, such as `10.0.0.2:53 answers SERVFAIL`."""
    did: dict[str, str] = {}
    for server, _tcp, port, problem, _response in error.kwargs.get("errors", ()):
        address = str(server).removeprefix("Do53:").rpartition("@")[0]
        place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        if isinstance(problem, str):
            did[place] = f"{place} answers {problem}"
        elif isinstance(problem, dns.exception.Timeout):
            did[place] = f"{place} does not answer"
        elif isinstance(problem, EOFError):
            did[place] = f"{place} closes the connection"
        elif isinstance(problem, dns.message.Truncated):
            continue
        else:
            did[place] = f"{place}: {problem or type(problem).__name__}"
    return ", ".join(did.values()) or "no name server answers"


def _is_fit(text: str) -> bool:
    """Whether a connection can be made to it, and only where it says: not the unspecified address, which is
    this machine in disguise, no group, no link-local IPv6 address (without its zone), no IPv4 address in IPv6
    dress."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv4Address):
        return not (address.is_multicast or address in _THIS_NETWORK or address == _BROADCAST)
    return not (
        address.is_unspecified
        or address.is_multicast
        or address.is_link_local
        or address.ipv4_mapped is not None
    )


_THIS_NETWORK: Final = ipaddress.ip_network("0.0.0.0/8")
_BROADCAST: Final = ipaddress.ip_address("255.255.255.255")


def _shown(kind: RecordType) -> str:
    return "IPv4" if kind == "A" else "IPv6"


class _Changing(Generic[T]):
    """What was read from a small local file, read anew when the file is another one."""

    def __init__(self, path: str, read: Callable[[str], T]) -> None:
        self._path = path
        self._read = read
        self._seen: tuple[int, ...] | None = None
        self._value: T | None = None

    def get(self) -> T:
        """Raises what `read` raises."""
        try:
            stat = os.stat(self._path)
            seen: tuple[int, ...] = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        except OSError:
            seen = ()
        if self._value is None or seen != self._seen:
            self._value = self._read(self._path)
            self._seen = seen
        return self._value


def _read_hosts(path: str) -> dict[str, tuple[str, ...]]:
    """hosts(5): addresses by name. What is no address is skipped, as the system's resolver does."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(_HOSTS_BYTES)
    except OSError:
        return {}
    names: dict[str, dict[str, None]] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) > 1 and is_ip(words[0]):
            address = str(ipaddress.ip_address(words[0]))
            for name in words[1:]:
                names.setdefault(name.rstrip(".").lower(), {})[address] = None
    return {name: tuple(addresses) for name, addresses in names.items()}
