"""The page of the admin listener, in a real browser: live numbers, the keyboard, its policy, its token."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import StartGateway, StartUpstream
from cryptography import x509
from support.certificates import issue
from support.chromium import Chromium
from support.gateway import Gateway, config, to_toml
from support.otlp import Receiver
from support.pebble import Pebble
from support.upstream import Upstream, reply

from fastgate import _core

TOKEN = "0123456789abcdef-token"
#: What stands beside a word of the table of traces, in all.
COUNT = (
    "Number([...document.querySelectorAll('main tr')].find(r => r.cells[0].innerText === '{}')"
    ".cells[2].innerText.replace(',', ''))"
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def page(chromium: Chromium) -> Iterator[Chromium]:
    """A tab without a memory. Whatever the browser complains of fails the test."""
    chromium.open("about:blank")
    chromium.errors.clear()
    chromium.requested.clear()
    yield chromium
    chromium.run("1")  # what it has still to say
    found = list(chromium.errors)
    # Before the gateway ends: a page that is still there would ask on, and complain to the next test.
    chromium.open("about:blank")
    chromium.wait("location.href === 'about:blank'")
    assert found == []


def tables(upstream: Upstream, **admin: Any) -> dict[str, Any]:
    return config(
        upstreams={"shop": {"endpoints": [upstream.address]}, "away": {"endpoints": ["127.0.0.1:1"]}},
        routes=[
            {"name": "shop", "match": {"prefix": "/shop"}, "upstream": "shop"},
            {"name": "away", "match": {"prefix": "/away"}, "upstream": "away"},
            {"name": "<b>text</b>", "match": {"path": "/fixed"}, "respond": {"body": "x"}},
        ],
    ) | {"admin": {"bind": "127.0.0.1:0", **admin}}


def url(gateway: Gateway) -> str:
    address = gateway.addresses["admin API"]
    assert not isinstance(address, str)
    return f"http://127.0.0.1:{address[1]}/"


@contextmanager
def load(gateway: Gateway, *paths: str) -> Iterator[None]:
    """One client, one request after the other, round and round."""
    stop = threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
        while not stop.wait(0.002):
            for path in paths:
                connection.request("GET", path)
                connection.getresponse().read()
        connection.close()

    client = threading.Thread(target=ask, name="load")
    client.start()
    try:
        yield
    finally:
        stop.set()
        client.join(10)


def cells(page: Chromium, row: str) -> list[str]:
    """What the row that begins so shows."""
    found: list[str] = page.run(
        "[...document.querySelectorAll('main tbody tr')].filter(r => r.cells[0].innerText === "
        f"{row!r}).map(r => [...r.cells].map(c => c.innerText))[0] || []"
    )
    return found


def test_it_shows_what_happens(start_gateway: StartGateway, upstream: Upstream, page: Chromium) -> None:
    gateway = start_gateway(tables(upstream))
    with load(gateway, "/shop", "/shop", "/away", "/fixed", "/nowhere"):
        page.open(url(gateway))
        page.wait("Number(document.documentElement.dataset.turns) >= 3", 20)
        figures = page.run("[...document.querySelectorAll('.figure dd')].map(e => e.innerText)")
        assert float(figures[0].split()[0].replace(",", "")) > 10, "requests in a second"
        assert 15 < float(figures[1].split()[0]) < 25, "one of five fails"
        assert all(float(text.split()[0]) > 0 for text in figures[2:4]), "latencies"
        assert page.run("document.querySelector('.figure .trace').getAttribute('d').length") > 10
        # Which route fails, and why; names are text, whatever they are.
        assert cells(page, "away")[2].startswith("100.0")
        assert cells(page, "shop")[2].startswith("0.0")
        assert float(cells(page, "<b>text</b>")[1].split()[0]) > 1
        for reason in ("connect-refused", "no-route"):
            assert reason in page.text()
        page.run(
            "[...document.querySelectorAll('summary')].find(e => e.innerText.includes('refused')).click()"
        )
        assert "refused the connection" in page.text()
    asked = {address.removeprefix(url(gateway)).partition("?")[0] for address in page.requested}
    assert asked - {"about:blank"} <= {"", "summary", "upstreams", "routes", "reasons", "openapi.json"} | {
        address for address in asked if address.startswith("data:")
    }


def test_an_endpoint_is_drained_by_keyboard_alone(
    start_gateway: StartGateway, upstream: Upstream, page: Chromium
) -> None:
    gateway = start_gateway(tables(upstream))
    page.open(url(gateway))
    page.wait("document.documentElement.dataset.turns")
    page.press("3")
    page.wait("document.querySelector('main h3')?.innerText === 'shop'")
    page.tab_to(f"Change {upstream.address} of shop")
    ring = page.run("getComputedStyle(document.activeElement).outlineStyle")
    assert ring == "solid", "the focus is seen"
    page.press("Enter")
    page.wait("document.querySelector('dialog').open")
    assert page.run("document.activeElement.value") == "auto"
    page.press("Escape")
    page.wait("!document.querySelector('dialog').open")
    assert page.focused() == f"Change {upstream.address} of shop", "the focus is back where it was"
    page.press("Enter", "ArrowDown", "ArrowDown", "Tab")
    assert page.run("document.querySelector('dialog [type=submit]').innerText") == "Drain it"
    page.tab_to("Drain it")
    page.press("Enter")
    gateway.wait_upstream(lambda shown: shown["endpoints"][0]["status"] == "draining", "shop")
    page.wait("document.querySelector('#said').innerText.includes('draining')")
    page.wait("document.querySelector('main .state').innerText.includes('draining')")
    assert page.focused() == f"Change {upstream.address} of shop"
    # And back, with another weight, which an impossible one does not change.
    page.press("Enter")
    page.wait("document.querySelector('dialog').open")
    page.press("ArrowUp", "ArrowUp")
    page.run("document.querySelector('dialog [type=number]').value = '7'")
    page.tab_to("Leave it to its health")
    page.press("Enter")
    gateway.wait_upstream(lambda shown: shown["endpoints"][0]["weight"] == 7, "shop")
    assert gateway.upstream("shop")["endpoints"][0]["state"] == "auto"


def test_keys_and_light_and_dark(start_gateway: StartGateway, upstream: Upstream, page: Chromium) -> None:
    gateway = start_gateway(tables(upstream))
    page.open(url(gateway), scheme="dark")
    page.wait("document.documentElement.dataset.turns")

    def paper() -> tuple[int, ...]:
        text = page.run("getComputedStyle(document.documentElement).backgroundColor")
        return tuple(int(part) for part in text[4:-1].split(","))

    assert max(paper()) < 60
    page.press("t")
    assert min(paper()) > 200
    page.press("t")
    assert max(paper()) < 60
    page.press("?", shift=True)
    page.wait(
        "document.querySelector('dialog').open && document.querySelector('dialog').innerText.includes('Esc')"
    )
    page.press("Escape")
    page.press("/")
    page.wait("document.activeElement.id === 'filter'")
    page.press("f", "i", "x")
    page.wait("document.querySelectorAll('main tbody tr').length === 1")
    assert "<b>text</b>" in page.text()
    # Nothing is wider than the window, in any section, down to the narrowest.
    page.resize(420, 800)
    for section in ("overview", "routes", "upstreams", "failures", "configuration"):
        page.run(f"location.hash = '#{section}'")
        page.wait(f"document.querySelector('[aria-current]').hash === '#{section}'")
        assert page.run("document.documentElement.scrollWidth") <= 420


def test_a_reload(start_gateway: StartGateway, upstream: Upstream, page: Chromium) -> None:
    gateway = start_gateway(tables(upstream))
    page.open(url(gateway) + "#configuration")
    page.wait("document.querySelector('main pre')?.innerText.includes('[upstreams.shop]')")
    click = "[...document.querySelectorAll('{}')].find(e => e.innerText === '{}').click()"
    gateway.write("nonsense")
    page.run(click.format("main button", "Reload the file"))
    page.run(click.format("dialog button", "Reload"))
    page.wait("document.querySelector('dialog .wrong')?.innerText.includes('gateway.toml:1')")
    changed = tables(upstream)
    changed["routes"][0]["name"] = "renamed"
    gateway.write(to_toml(changed))
    page.run(click.format("dialog button", "Reload"))
    page.wait("document.querySelector('#said').innerText.includes('routes: 1 added; routes: 1 removed')")
    page.wait("document.querySelector('main pre').innerText.includes('renamed')")
    page.wait("document.querySelector('#about').innerText.includes('configuration 2')")
    page.errors[:] = [error for error in page.errors if "422" not in error]  # the browser's own word on it


def test_versions_are_compared_and_rolled_back(
    start_gateway: StartGateway, upstream: Upstream, page: Chromium
) -> None:
    gateway = start_gateway(tables(upstream))
    changed = tables(upstream)
    changed["routes"][0]["match"] = {"prefix": "/store"}
    gateway.reload(changed)
    page.open(url(gateway) + "#configuration")
    page.wait("document.querySelectorAll('main tbody tr').length === 2")
    assert cells(page, "2, in force")[2:4] == ["a signal", "routes: 1 changed"]
    # By keyboard alone: first what would change, then the change.
    page.tab_to("Compare version 1 with what is in force")
    page.press("Enter")
    page.wait("document.activeElement.tagName === 'PRE'")
    assert 'match.prefix: "/store" -> "/shop"' in page.text()
    page.tab_to("Roll back to version 1")
    page.press("Enter")
    page.wait("document.activeElement.innerText === 'Roll back' && document.querySelector('dialog').open")
    page.press("Enter")
    page.wait("document.querySelector('#said').innerText.includes('as version 3')")
    page.wait("document.querySelectorAll('main tbody tr').length === 3")
    assert cells(page, "3, in force")[2] == "rollback to 1"
    page.wait("document.querySelector('main pre').innerText.includes('/shop')")
    with gateway.client() as client:
        assert client.get("/store").status == 404
    page.wait("document.querySelector('#about').innerText.includes('configuration 3')")


def test_certificates(
    start_gateway: StartGateway, upstream: Upstream, page: Chromium, tmp_path: Path
) -> None:
    issued = issue("CN=shop.example", x509.DNSName("shop.example"), days=(-1, 9), server=True)
    (tmp_path / "cert.pem").write_text(issued.pem)
    (tmp_path / "key.pem").write_text(issued.key_pem)
    pair = {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    given = tables(upstream)
    given["listeners"][0]["tls"] = {"certificates": [pair]}
    gateway = start_gateway(given)
    page.open(url(gateway))
    page.wait("[...document.querySelectorAll('nav a')].some(e => e.innerText === 'Certificates')")
    page.press("6")
    page.wait("document.querySelector('main td')?.innerText === 'shop.example'")
    shown = cells(page, "shop.example")
    assert (shown[1], shown[2], shown[-1]) == ("valid", "main", "8")
    assert page.run("document.querySelector('main td:last-child').className").split() == ["num", "bad"]


def test_certificates_from_a_directory(
    start_gateway: StartGateway, upstream: Upstream, page: Chromium, tmp_path: Path
) -> None:
    """One was issued; of the other it is told why not."""
    folder = tmp_path / "pebble"
    folder.mkdir()
    with Pebble(folder) as pebble:
        pebble.point("two.example.com", "127.0.0.2")  # where nobody answers
        given = tables(upstream)
        given["listeners"] = [
            {"name": "plain", "bind": f"127.0.0.1:{pebble.http_port}"},
            {
                "name": "secure",
                "bind": "127.0.0.1:0",
                "tls": {"acme": "test", "domains": ["one.example.com", "two.example.com"]},
            },
        ]
        given["acme"] = {
            "test": {
                "directory": pebble.directory,
                "terms_agreed": True,
                "ca_file": str(pebble.ca_file),
                "storage": {"path": str(tmp_path / "store")},
            }
        }
        gateway = start_gateway(given)
        page.open(url(gateway) + "#certificates")
        page.wait("document.querySelectorAll('main .state.valid').length === 1", 20)
        page.wait("document.querySelectorAll('main .state.pending').length === 1", 20)
        page.wait("document.querySelector('main h2').innerText === 'What fails'", 20)
        why = cells(page, "two.example.com")
        assert why[1].startswith("connection: ")
        assert int(why[2]) >= 1
        issued = cells(page, "one.example.com")
        assert issued[3].startswith("ACME test, by CN=Pebble")
        assert issued[4] == "ECDSA secp256r1"
        page.resize(420, 800)
        assert page.run("document.documentElement.scrollWidth") <= 420


def wait_turns(page: Chromium, more: int) -> None:
    """Until the page has asked for its numbers so many times more."""
    turns = int(page.run("document.documentElement.dataset.turns"))
    page.wait(f"Number(document.documentElement.dataset.turns) >= {turns + more}")


def test_a_failure_tells_what_to_do(start_gateway: StartGateway, upstream: Upstream, page: Chromium) -> None:
    """By keyboard alone, while others come in."""
    gateway = start_gateway(tables(upstream))
    with load(gateway, "/away/x", "/nowhere"):
        page.open(url(gateway) + "#failures")
        page.wait("document.querySelectorAll('main td button').length > 10")
        page.tab_to("connect-refused: more of request ")
        name = page.focused()
        wait_turns(page, 5)
        assert page.focused() == name, "the row stays where somebody reads it"
        page.press("Enter")
        page.wait("document.querySelector('dialog').open")
        shown = page.run("document.querySelector('dialog').innerText")
        reason = next(one for one in _core.REASONS if one.code == "connect-refused")
        for text in (reason.cause, reason.remedy, "GET /away/x", "away, 127.0.0.1:1", name.split()[-1]):
            assert text in shown
        assert "attempt 127.0.0.1:1, connect-refused" in shown, "step by step"
        wait_turns(page, 5)
        page.press("Escape")
        page.wait("!document.querySelector('dialog').open")
        assert page.focused() == name
    assert {address.partition("?")[0].removeprefix(url(gateway)) for address in page.requested} <= {
        "about:blank", "", "summary", "upstreams", "routes", "reasons", "openapi.json", "failures",
    } | {address for address in page.requested if address.startswith("data:")}  # fmt: skip


def test_an_error_of_the_upstreams_own(
    start_gateway: StartGateway, start_upstream: StartUpstream, page: Chromium
) -> None:
    """It has no reason of ours, and counts against the upstream."""
    upstream = start_upstream()
    upstream.default = (reply(503),)
    gateway = start_gateway(tables(upstream))
    with load(gateway, "/shop"):
        page.open(url(gateway) + "#failures")
        page.wait("document.querySelector('main td button').innerText === \"upstream's own\"")
        page.run("document.querySelector('main td button').click()")
        assert "The upstream has answered so itself" in page.text()
        page.press("Escape", "3")
        page.wait("document.querySelector('main header p b.bad')?.innerText === '100.0 %'")


def test_traces(start_gateway: StartGateway, upstream: Upstream, page: Chromium) -> None:
    with Receiver() as receiver:
        receiver.statuses.extend([400] * 1000)
        given = tables(upstream) | {
            "tracing": {"endpoint": f"{receiver.url}/v1/traces", "sample": 1, "flush_interval": "100ms"}
        }
        gateway = start_gateway(given)
        with load(gateway, "/shop"):
            page.open(url(gateway))
            page.wait(
                "[...document.querySelectorAll('h2')].find(e => e.innerText === 'Traces').checkVisibility()"
            )
            page.wait(f"{COUNT.format('sampled')} > 0 && {COUNT.format('dropped')} > 0")
            receiver.statuses.clear()
            page.wait(f"{COUNT.format('exported')} > 0")
        # A gateway that samples nothing has nothing to tell.
        page.open(url(start_gateway(tables(upstream))))
        page.wait("document.documentElement.dataset.turns")
        assert "Traces" not in page.text()


def test_it_asks_for_the_token(
    start_gateway: StartGateway, upstream: Upstream, page: Chromium, tmp_path: Path
) -> None:
    file = tmp_path / "token.txt"
    file.write_text(TOKEN)
    gateway = start_gateway(tables(upstream, token={"file": str(file)}))
    page.open(url(gateway))
    page.wait("document.querySelector('dialog').open")
    page.press("Escape")
    page.wait("document.querySelector('dialog').open")  # there is nothing behind it
    for given, then in (
        ("wrong", "document.querySelector('dialog .wrong:not([hidden])')?.innerText"),
        (TOKEN, "1"),
    ):
        page.wait("document.activeElement.type === 'password'")
        page.press(*given)
        page.press("Enter")
        page.wait(then)
        if given == "wrong":
            page.wait("document.querySelector('dialog').innerText.includes('The token is wrong')")
    page.wait("document.documentElement.dataset.turns")
    assert page.run("Object.values(sessionStorage)") == [TOKEN]
    assert page.run("[localStorage.length, document.cookie]") == [0, ""]
    page.errors[:] = [error for error in page.errors if "401" not in error]


def test_the_gateway_goes(start_gateway: StartGateway, upstream: Upstream, page: Chromium) -> None:
    gateway = start_gateway(tables(upstream))
    page.open(url(gateway))
    page.wait("document.documentElement.dataset.turns")
    gateway.stop()
    page.wait("document.querySelector('#notice').innerText.startsWith('The gateway has not answered since')")
    assert page.run("document.querySelector('main').className") == "stale"
    page.errors[:] = [error for error in page.errors if "ERR_CONNECTION_REFUSED" not in error]


def test_no_other_script_runs(start_gateway: StartGateway, upstream: Upstream, page: Chromium) -> None:
    gateway = start_gateway(tables(upstream))
    page.open(url(gateway))
    page.wait("document.documentElement.dataset.turns")
    page.run(
        "{ const s = document.createElement('script');"
        " try { s.text = 'window.ran = 1'; document.body.append(s) }"
        " catch (e) { window.refused = e.message } }"
    )
    assert page.run("[window.ran ?? null, Boolean(window.refused)]") == [None, True]
    assert page.run("fetch('http://127.0.0.1:1/').then(() => 'sent', e => 'refused')") == "refused"
    page.run("1")
    assert any("Content Security Policy" in error for error in page.errors), "the policy tells of it"
    page.errors.clear()
