"""Session tickets: good at every worker, behind a reload, a worker's end and an upgrade; their keys change
with time, and those before the last change are taken until the next one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import StartGateway
from support.client import Client, request
from support.gateway import Gateway, config
from support.tls import Pair, TlsClient, client_context, server_certificate
from test_program_upgrade import upgrade

from fastgate import _core
from fastgate.config import model
from fastgate.server.certificates import CertificateStore, ListenerCertificates
from fastgate.server.tickets import TicketKeys, TicketRotation, TicketSecrets

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
BOTH = pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])
WHO = """
import os
from fastgate.plugins import Plugin, Response

class Who(Plugin):
    def on_request(self, exchange):
        return Response(body=str(os.getpid()))
"""


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path, "first", server_certificate("test.example"))


# -- keys


class Rig:
    """A listener's contexts without a gateway: handshakes in memory, as a connection makes them."""

    def __init__(self, pair: Pair, keys: TicketKeys, version: ssl.TLSVersion) -> None:
        shown = model.Certificate(
            cert="x",
            key="x",
            cert_pem=pair.cert.read_bytes(),
            key_pem=model.Secret(pair.key.read_text(), "x"),
            names=("test.example",),
        )
        tls = model.ListenerTls(certificates=(shown,))
        self.certificates = ListenerCertificates(
            model.Listener(name="main", bind=":443", tls=tls), keys, CertificateStore()
        )
        self.context = client_context(version)

    def connect(self, session: ssl.SSLSession | None = None) -> tuple[bool, ssl.SSLSession]:
        """Whether the session was resumed, and the one that comes of it."""
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.context.wrap_bio(to_client, to_server, server_hostname="test.example", session=session)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        hello = to_server.read()
        name = _core.server_name(hello)
        assert name == "test.example"
        to_server.write(hello)
        context = self.certificates.begin(SimpleNamespace(), hello, name)
        server = context.wrap_bio(to_server, to_client, server_side=True)
        server.wants_challenge = False  # type: ignore[attr-defined]
        for side in (server, client, server, client):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
        server.write(b"x")
        assert client.read(1) == b"x"
        assert client.session is not None
        return bool(client.session_reused), client.session


@BOTH
def test_a_key_is_taken_for_one_more_period(pair: Pair, version: ssl.TLSVersion) -> None:
    keys = TicketKeys()
    rig = Rig(pair, keys, version)
    _, first = rig.connect()
    assert rig.connect(first)[0]
    keys.rotate()
    resumed, renewed = rig.connect(first)
    assert resumed, "the previous key is still accepted"
    _, second = rig.connect()
    keys.rotate()
    assert not rig.connect(first)[0], "two periods old"
    assert not rig.connect(renewed)[0], "what a previous key's ticket brings is of that key too"
    assert rig.connect(second)[0]
    assert rig.connect(rig.connect()[1])[0]


@BOTH
def test_another_process_takes_the_same_keys(pair: Pair, version: ssl.TLSVersion) -> None:
    ours = TicketKeys()
    ours.rotate()
    theirs = TicketKeys(ours.secrets)
    rig = Rig(pair, ours, version)
    other = Rig(pair, theirs, version)
    other.context = rig.context
    _, session = rig.connect()
    assert other.connect(session)[0]
    ours.rotate()
    theirs.take(ours.secrets)
    _, session = rig.connect()
    assert other.connect(session)[0]


async def test_the_time_of_a_key_counts_on(pair: Pair) -> None:
    """It is that of the program before, behind an upgrade; a period that a reload makes shorter holds too."""
    changed = asyncio.Event()
    keys = TicketKeys(TicketSecrets(os.urandom(32), b"", time.monotonic() - 100))
    first = keys.secrets
    rotation = TicketRotation(keys, changed.set)
    rotation.follow(3600)
    assert keys.secrets is first
    rotation.follow(99)
    async with asyncio.timeout(5):
        await changed.wait()
    assert keys.secrets.previous == first.current
    assert keys.secrets.current != first.current
    rotation.close()


# -- a gateway


def tables(pair: Pair, rotation: str, *, workers: int = 2, **more: Any) -> dict[str, Any]:
    return config(
        admin={"bind": "127.0.0.1:0"},
        listener={"tls": {"certificates": [pair.table]}},
        server={"workers": workers, "ticket_rotation": rotation},
        route={"respond": {"body": "never"}, "plugins": ["who"], **more},
        plugins={"who": {"use": str(pair.cert.with_name("who.py"))}},
    )


def key_name(gateway: Gateway) -> str:
    """That of the key with which a new ticket was made (RFC 5077 4), as OpenSSL's own client prints it."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{gateway.port}", "-tls1_2"],
        input="",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    found = re.search(r"TLS session ticket:\n\s+0000 - ([0-9a-f -]{47})", done.stdout)
    assert found is not None, done.stdout + done.stderr
    return found[1]


def until(ready: Callable[[], bool], gateway: Gateway) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline, gateway.errors()


class Visitor:
    """A client that comes back with the first ticket that it was given."""

    def __init__(self, gateway: Gateway, version: ssl.TLSVersion) -> None:
        self._gateway = gateway
        self.context = client_context(version)
        self.session: ssl.SSLSession | None = None
        resumed, self.pid = self.come()
        assert not resumed

    def come(self) -> tuple[bool, int]:
        """Whether its session was resumed, and by which process."""
        with TlsClient(self._gateway.address, context=self.context, session=self.session) as client:
            pid = int(client.get("/").body)
            self.session = self.session or client.sock.session
            return bool(client.sock.session_reused), pid

    def meet(self, pids: set[int], *, resumed: bool = True) -> None:
        """Until each of these processes has answered; all of them take its ticket, or none."""
        met: set[int] = set()

        def come() -> bool:
            found, pid = self.come()
            assert found is resumed or pid not in pids, f"{pid} of {pids}"
            met.add(pid)
            return met >= pids

        until(come, self._gateway)

    def wait_refused(self) -> None:
        until(lambda: not self.come()[0], self._gateway)


@pytest.fixture
def start(start_gateway: StartGateway, tmp_path: Path) -> StartGateway:
    (tmp_path / "who.py").write_text(WHO)
    return start_gateway


@BOTH
def test_every_worker_takes_them(start: StartGateway, pair: Pair, version: ssl.TLSVersion) -> None:
    gateway = start(tables(pair, "12h", workers=3))
    Visitor(gateway, version).meet(set(gateway.workers))


def wait_change(gateway: Gateway, *known: str) -> str:
    """The name of the next key."""
    until(lambda: key_name(gateway) not in known, gateway)
    return key_name(gateway)


def test_keys_change_with_time(start: StartGateway, pair: Pair) -> None:
    """In all workers; a ticket lives through one change, and not through two."""
    gateway = start(tables(pair, "3s"))
    workers = set(gateway.workers)
    while True:
        visitors = [Visitor(gateway, version) for version in (V12, V13)]
        first = key_name(gateway)
        second = wait_change(gateway, first)
        seen = [visitor.come() for visitor in visitors for _ in range(4)]
        # On a machine that stood still meanwhile they have changed twice: that proves nothing.
        if key_name(gateway) == second:
            break
    assert all(resumed for resumed, _ in seen)
    wait_change(gateway, first, second)
    for visitor in visitors:
        visitor.wait_refused()
        visitor.meet(workers, resumed=False)


@BOTH
def test_who_comes_later_has_the_new_keys(start: StartGateway, pair: Pair, version: ssl.TLSVersion) -> None:
    """Behind a reload, in a worker that takes a dead one's place, and in a program that takes over."""
    gateway = start(tables(pair, "1s"))
    wait_change(gateway, key_name(gateway))
    gateway.reload(tables(pair, "12h"))
    name = key_name(gateway)
    visitor = Visitor(gateway, version)
    visitor.meet(set(gateway.workers))
    gateway.reload(tables(pair, "12h", match={"prefix": "/"}))
    visitor.meet(set(gateway.workers))
    victim, other = gateway.workers
    os.kill(victim, signal.SIGKILL)
    gateway.wait_workers(3)
    visitor.meet({other, gateway.workers[-1]})
    gateway.stderr[:] = []
    upgrade(gateway)
    until(lambda: len(gateway.workers) >= 5, gateway)
    visitor.meet(set(gateway.workers[-2:]))
    assert key_name(gateway) == name


class Slowly:
    """A handshake whose hello is sent piece by piece."""

    def __init__(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        self._to_server, self._to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._to_client, self._to_server, server_hostname="test.example", session=session
        )
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        hello = self._to_server.read()
        self.pieces = [hello[at : at + 40] for at in range(0, len(hello), 40)]

    def finish(self, plain: Client) -> None:
        while True:
            assert plain.stream.fill("the handshake")
            self._to_client.write(plain.stream.some(65536, "the handshake"))
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                plain.send(self._to_server.read())
                continue
            plain.send(self._to_server.read())
            return

    def ask(self, plain: Client) -> bytes:
        self.tls.write(request())
        plain.send(self._to_server.read())
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                assert plain.stream.fill("the answer")
                self._to_client.write(plain.stream.some(65536, "the answer"))


@BOTH
def test_a_hello_in_pieces(start: StartGateway, pair: Pair, version: ssl.TLSVersion) -> None:
    """The previous key's name may come with any of them."""
    gateway = start(tables(pair, "3s", workers=1))
    while True:
        visitor = Visitor(gateway, version)
        first = key_name(gateway)
        second = wait_change(gateway, first)
        slowly = Slowly(visitor.context, visitor.session)
        with gateway.client() as plain:
            plain.send_pieces(*slowly.pieces)
            slowly.finish(plain)
        if key_name(gateway) == second:
            break
    assert slowly.tls.session_reused


def test_a_handshake_that_meets_an_upgrade(start: StartGateway, pair: Pair) -> None:
    """Its connection was accepted by the program that goes: it has its request, as those without TLS have."""
    gateway = start(tables(pair, "12h", workers=1))
    slowly = Slowly(client_context(V13))
    with gateway.client() as plain:
        plain.send(slowly.pieces[0])
        until(lambda: gateway.admin("/counters")["gauges"]["connections_accepted"] >= 1, gateway)
        old = gateway.workers[0]
        upgrade(gateway)
        gateway.wait_stderr("fastgate: draining")
        plain.send_pieces(*slowly.pieces[1:])
        slowly.finish(plain)
        answer = slowly.ask(plain)
        assert answer.endswith(b"\r\n\r\n%d" % old)
