"""Each benchmark peer that is there: its configuration is accepted, it forwards, its features work."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.load import Load
from bench.model import AGGREGATE, Feature, Request, Shape, Survival
from bench.peers import PEERS
from bench.peers.base import NATIVE, Peer, Place, find
from bench.process import Session
from bench.provision import compile_native
from bench.resilience.operate import OPERATORS
from bench.resilience.scenarios import LIMITS
from bench.resilience.stage import EVERYTHING
from bench.runner import ask, free_port, start_peer, start_upstream

pytestmark = pytest.mark.skipif(
    find("taskset") is None
    or len(os.sched_getaffinity(0)) < 2
    or (find("cc") is None and not (NATIVE / "upstream").exists()),
    reason="needs taskset, two cores and cc (python -m bench --setup)",
)

Start = Callable[..., tuple[Session, Place]]


@pytest.fixture(scope="session", autouse=True)
def _native() -> None:
    compile_native()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a peer for a shape in front of an upstream; both end with the test."""
    with ExitStack() as stack:

        def run(peer: Peer, shape: Shape, expected: int = 200) -> tuple[Session, Place]:
            upstream, ports = start_upstream(tmp_path, shape.endpoints)
            stack.callback(upstream.stop)
            place = Place(tmp_path, free_port(), ports, shape, free_port())
            session = start_peer(peer, place, Request().encode(0), expected)
            stack.callback(session.stop)
            return session, place

        yield run


def here(name: str) -> Peer:
    """A peer, or the test is skipped."""
    peer = PEERS[name]
    if missing := peer.missing():
        pytest.skip(f"missing: {missing}; {peer.install}")
    return peer


def fetch(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status == 200:
            # The load clients read nothing else.
            assert answer.headers["Content-Length"] == str(len(text))
        return answer.status, text
    finally:
        connection.close()


def full(peer: Peer) -> Shape:
    """As much of the full shape as the peer can do."""
    can = peer.features
    return Shape(
        routes=40 if Feature.ROUTES in can else 1,
        access_log=Feature.ACCESS_LOG in can,
        rate_limit=Feature.RATE_LIMIT in can,
        ip_prefixes=30 if Feature.IP_LIST in can else 0,
    )


@pytest.mark.parametrize("name", PEERS)
def test_forwards_by_route_and_logs(name: str, start: Start) -> None:
    peer = here(name)
    shape = full(peer)
    session, place = start(peer, shape)
    last = f"/svc/{shape.routes - 1:05d}"
    status, body = fetch(place.port, "GET", f"{last}/items")
    assert (status, len(body)) == (200, 100)
    assert fetch(place.port, "GET", f"{last}/100k") == (200, b"x" * (100 << 10))
    assert fetch(place.port, "POST", f"{last}/items", b"y" * 10240)[0] == 200
    if not peer.floor:
        assert fetch(place.port, "GET", "/other/items")[0] == 404
    if Feature.ROUTES in full(peer).features():
        assert fetch(place.port, "GET", f"/svc/{shape.routes:05d}/items")[0] == 404
    session.stop()
    if shape.access_log:
        log = place.log if place.log.exists() else session.log  # HAProxy's goes to stdout
        assert f"{last}/items" in log.read_text()


@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if Feature.TLS in peer.features])
def test_tls_is_spoken(name: str, start: Start) -> None:
    """Full handshakes, and resumed ones."""
    _, place = start(here(name), Shape(tls=True))
    assert ask(place.port, Request().encode(0), tls=True) == 200
    request = place.folder / "request"
    request.write_bytes(Request().encode(0))
    load = Load(place.port, [0], request, request, tls=True)
    for resume in (False, True):
        done = load.handshakes(2, 0.2, resume)
        assert done.made > 2
        assert (done.errors, done.resumed) == (0, done.made - 2 if resume else 0)


@pytest.mark.parametrize(
    "name", [name for name, peer in PEERS.items() if Feature.AGGREGATION in peer.features]
)
def test_an_aggregation_is_all_parts_by_name(name: str, start: Start) -> None:
    peer, shape = here(name), Shape(parts=("2k", "1ms/2k", "2k"))
    if peer.lacks(shape):
        pytest.skip(f"{name} is without a module for it: python -m bench --setup")
    _, place = start(peer, shape)
    status, document = fetch(place.upstream_port, "GET", "/2k")
    assert (status, len(document)) == (200, 2048)
    status, page = fetch(place.port, "GET", f"/svc/00000{AGGREGATE}")
    assert status == 200
    assert json.loads(page) == dict.fromkeys("abc", json.loads(document))
    assert fetch(place.port, "GET", "/svc/00000/2k") == (200, document)


def test_a_part_of_the_upstream_waits_and_others_do_not(tmp_path: Path) -> None:
    upstream, [port] = start_upstream(tmp_path)
    try:
        with ThreadPoolExecutor(3) as pool:
            paths = ("/150ms/2k", "/2k", "/100ms/2k")
            ended = {pool.submit(fetch, port, "GET", path): path for path in paths}
            order = [ended[future] for future in as_completed(ended)]
        assert order == ["/2k", "/100ms/2k", "/150ms/2k"]
    finally:
        upstream.stop()


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("limited", [False, True])
def test_survival_is_accepted_and_endpoints_take_turns(name: str, limited: bool, start: Start) -> None:
    peer = here(name)
    survival = Survival(limit=LIMITS[name][1]) if limited else EVERYTHING
    _, place = start(peer, Shape(endpoints=4, survival=survival))
    for path in ("items", "100k"):
        assert fetch(place.port, "GET", f"/svc/00000/{path}")[0] == 200
    assert fetch(place.port, "POST", "/svc/00000/items", b"y")[0] == 200


@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if Feature.IP_LIST in peer.features])
def test_ip_list_refuses_a_client_that_is_not_on_it(name: str, start: Start) -> None:
    peer = here(name)
    start(peer, Shape(routes=2, ip_prefixes=30, client_listed=False), 403)


@pytest.mark.parametrize(
    "name", [name for name, peer in PEERS.items() if Feature.RATE_LIMIT in peer.features]
)
def test_rate_limit_refuses_what_is_above_it(name: str, start: Start) -> None:
    peer = here(name)
    _, place = start(peer, Shape(routes=2, rate_limit=True, rate=1))
    statuses = {ask(place.port, Request().encode(1)) for _ in range(8)}
    assert 429 in statuses
    assert statuses <= {200, 429}
