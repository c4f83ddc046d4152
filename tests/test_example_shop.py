"""examples/shop: one order, by the gateway of the apps and that of the browsers, with services that fail."""

from __future__ import annotations

import importlib
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.answers import reason_of
from support.chromium import Chromium
from support.client import request
from support.gateway import ROOT, Gateway

from fastgate.config import load

SHOP = ROOT / "examples" / "shop"
FILES = [str(SHOP / f"{kind}.toml") for kind in ("mobile", "web")]

sys.path.insert(0, str(SHOP))  # its modules are beside the program that uses them
services: Any = importlib.import_module("services")
pages: Any = importlib.import_module("page")
program: Any = importlib.import_module("run")


class Shop:
    """All of it: `services` by name, a real gateway process, the page's service."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.services: dict[str, Any] = stack.enter_context(services.running({}))
        places = {services.PORTS[name]: one.port for name, one in self.services.items()}
        files = program.configured(folder, {**places, 8091: 0, 8092: 0, 8093: 0})
        self.gateway = stack.enter_context(Gateway({}, folder, files=files))
        ports = {name: self.gateway.addresses[f"{name}/public"][1] for name in ("mobile", "web")}
        admin = self.gateway.addresses["admin API"][1]
        self.page = stack.enter_context(pages.Page(0, ports, admin, self.services))
        self.url = f"http://127.0.0.1:{self.page.server_port}/"

    def ask(self, kind: str, order: str = "3") -> Any:
        with self.gateway.client(f"{kind}/public") as client:
            return client.send(request(target=f"/orders/{order}")).response()

    def page_of(self, kind: str, order: str = "3") -> Any:
        """The answer, its numbers as they are written."""
        answer = self.ask(kind, order)
        assert answer.status == 200, answer.body
        return json.loads(answer.body, parse_int=str, parse_float=str)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with ExitStack() as stack:
        yield Shop(tmp_path_factory.mktemp("shop"), stack)


@pytest.fixture
def shop(running: Shop) -> Iterator[Shop]:
    """With all services up."""
    yield running
    for service in running.services.values():
        service.set("up")


def test_accepted_without_warnings_together_and_alone() -> None:
    for chosen in (FILES, *([file] for file in FILES)):
        assert not load(*chosen, strict=True).warnings


def test_the_app_gets_a_small_flat_answer_with_exact_numbers(shop: Shop) -> None:
    assert shop.page_of("mobile", "1") == {
        "id": "1",
        "number": "20261120000000000017",
        "status": "shipped",
        "total": "149.80",
        "items": [{"sku": "LAMP-1", "quantity": "2"}, {"sku": "BULB-9", "quantity": "5"}],
        "customer": "Ada Lovelace",
        "products": [
            {"title": 'Desk lamp "Noon"', "images": {"small": "/images/LAMP-1-small.webp"}},
            {"title": "LED bulb, 9 W", "images": {"small": "/images/BULB-9-small.webp"}},
        ],
    }


def test_the_browser_gets_all_of_the_same_services(shop: Shop) -> None:
    page = shop.page_of("web")
    assert list(page) == ["order", "customer", "products", "stock", "reviews", "recommendations"]
    assert page["order"]["total"] == "1249.00"
    assert not {"risk_score", "payment"} & set(page["order"])
    assert (page["customer"]["name"], "credit_limit" in page["customer"]) == ("Grace Hopper", False)
    skus = [item["sku"] for item in page["order"]["items"]]
    assert [[each["sku"] for each in page[part]] for part in ("products", "stock", "reviews")] == [skus] * 3
    assert [each["sku"] for each in page["recommendations"]] == ["BOOK-4", "BULB-9"]


def test_who_wants_no_offers_is_asked_for_none(shop: Shop) -> None:
    answer = shop.ask("web", "2")
    assert "recommendations" not in answer.json()
    assert answer.get("fastgate-partial") is None


@pytest.mark.parametrize("state", ["down", "failing"])
def test_an_optional_service_that_fails_is_said_to_be_missing(shop: Shop, state: str) -> None:
    shop.services["reviews"].set(state)
    reason, status = {"down": ("connect-refused", {}), "failing": ("part-status", {"status": 500})}[state]
    answer = shop.ask("web")
    page = answer.json()
    assert (answer.status, page["reviews"]) == (200, [])
    assert page["_errors"] == [{"part": "reviews", "reason": reason, **status}]
    assert answer.get("fastgate-partial") == f'"reviews";reason={reason}'
    assert answer.get("cache-control") == "no-store"
    assert len(page["products"]) == 4
    # The apps do not ask for it.
    assert shop.ask("mobile").get("fastgate-partial") is None


def test_an_optional_service_that_is_slow_is_not_waited_for(shop: Shop) -> None:
    shop.services["recommendations"].set("slow")
    answer = shop.ask("web")
    assert answer.status == 200
    assert "recommendations" not in answer.json()
    assert answer.get("fastgate-partial") == '"recommendations";reason=part-timeout'


def test_without_a_required_service_there_is_no_answer_and_it_says_why(shop: Shop) -> None:
    shop.services["customers"].set("down")
    for kind in ("mobile", "web"):
        answer = shop.ask(kind)
        assert (answer.status, reason_of(answer)) == (502, "aggregate-failed")
        assert answer.json()["parts"][0] == {"part": "customer", "reason": "connect-refused"}
    shop.services["customers"].set("up")
    assert shop.ask("mobile").status == 200


def test_an_order_that_does_not_exist_is_the_clients_404(shop: Shop) -> None:
    for kind in ("mobile", "web"):
        answer = shop.ask(kind, "99")
        assert (answer.status, reason_of(answer)) == (404, "aggregate-failed")


def fetch(url: str, **more: Any) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, **more), timeout=10) as answer:
        return json.load(answer)


def test_the_page_is_told_when_each_part_ran(shop: Shop) -> None:
    answer = fetch(f"{shop.url}order/web/3")
    steps = {step["name"]: step for step in answer["trace"]["steps"] if step["step"] == "part"}
    products, reviews = ([f"{part}[{i}]" for i in range(4)] for part in ("products", "reviews"))
    assert set(steps) == {"order", "customer", "stock", "recommendations", *products, *reviews}

    def end(name: str) -> int:
        return int(steps[name]["at"] + steps[name]["took"])

    for name in ("customer", "stock", *products, *reviews):
        assert steps[name]["at"] >= end("order")
    assert steps["recommendations"]["at"] >= end("customer")
    assert steps["stock"]["at"] < end("customer"), "they do not wait for each other"
    assert max(map(end, steps)) <= answer["trace"]["total_ns"]


def test_the_page_is_for_browsers_of_this_machine_alone(shop: Shop) -> None:
    for path, method, more, status in (
        ("", "GET", {"headers": {"Host": "shop.example"}}, 421),
        ("order/other/3", "GET", {}, 404),
        ("services/orders", "PUT", {"data": b"gone"}, 400),
        ("services/orders", "POST", {"data": b"down"}, 501),
        ("services/orders", "OPTIONS", {}, 501),
    ):
        with pytest.raises(urllib.error.HTTPError) as told:
            fetch(shop.url + path, method=method, **more)
        assert told.value.code == status
        told.value.close()
    assert shop.services["orders"].state == "up"


def test_the_page_shows_the_waterfall_and_what_is_missing(shop: Shop, tmp_path: Path) -> None:
    with Chromium(tmp_path) as page:
        page.open(shop.url, height=1100)
        page.wait("document.querySelectorAll('#web .flow tr').length === 7")
        rows = "[...document.querySelectorAll('#{} .flow th')].map(each => each.innerText).filter(Boolean)"
        shown = {kind: page.run(rows.format(kind)) for kind in ("mobile", "web")}
        assert shown["mobile"][0] == shown["web"][0] == "order"
        assert set(shown["mobile"][1:]) == {"customer", "products× 4"}
        assert set(shown["web"][1:]) == {"customer", "products× 4", "stock", "reviews× 4", "recommendations"}
        assert "20261124000000000021" in page.run("document.querySelector('#web pre').innerText")
        page.screenshot(tmp_path / "whole.png")
        page.run(
            "(e => { e.value = 'down'; e.dispatchEvent(new Event('change')) })"
            "(document.getElementById('state-reviews'))"
        )
        page.wait("document.querySelector('#web .flow .bad').innerText === 'connect-refused'")
        assert '"reviews";reason=connect-refused' in page.text()
        assert page.run("document.querySelector('#mobile .bad')") is None
        page.screenshot(tmp_path / "partial.png")
        assert page.errors == []
        assert {url for url in page.requested if not url.startswith(("data:", shop.url))} == set()


def free_ports(count: int) -> int:
    """The first of so many in a row."""
    for first in range(20100, 32000, count):
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
    raise AssertionError("no ports")


def test_one_command_runs_it_all_and_ends_it(tmp_path: Path) -> None:
    port = free_ports(4)
    with subprocess.Popen(
        [sys.executable, str(SHOP / "run.py"), "--port", str(port)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as shop:
        try:
            assert shop.stdout is not None
            told = []
            for line in shop.stdout:
                told.append(line)
                if "Ctrl-C ends it all" in line:
                    break
            else:
                raise AssertionError(f"it did not start: {shop.stderr.read() if shop.stderr else ''}")
            assert f"http://127.0.0.1:{port}/\n" in "".join(told)
            for kind in ("mobile", "web"):
                assert fetch(f"http://127.0.0.1:{port}/order/{kind}/1")["status"] == 200
            shop.send_signal(signal.SIGINT)
            _, errors = shop.communicate(timeout=30)
        finally:
            if shop.poll() is None:
                shop.terminate()
    assert shop.returncode == 0, errors
    assert "Traceback" not in errors
    assert "fastgate: stopped" in errors
    assert list(tmp_path.iterdir()) == []
