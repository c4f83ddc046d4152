"""examples/frontends: three gateways for three kinds of clients, in one process, before the same services."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.admin import Admin
from support.client import request
from support.gateway import ROOT, Gateway
from support.upstream import Upstream

from fastgate.config import load

KINDS = ("mobile", "web", "partner")
SERVICES = {"orders": 9001, "shop": 9002, "shop-next": 9003, "mobile/aggregator": 9004}
KEY = "X-Api-Key: acme-0123456789abcdef"


class Frontends:
    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "examples" / "frontends", folder, dirs_exist_ok=True)
        self.upstreams = {name: stack.enter_context(Upstream(name=name)) for name in SERVICES}
        for file in folder.rglob("*.toml"):
            text = file.read_text()
            for name, port in SERVICES.items():
                text = text.replace(f"127.0.0.1:{port}", self.upstreams[name].address)
            for port in (8081, 8082, 8083, 9901):
                text = text.replace(f"127.0.0.1:{port}", "127.0.0.1:0")
            file.write_text(text)
        files = [folder / f"{kind}.toml" for kind in KINDS]
        self.gateway = stack.enter_context(Gateway({}, folder, files=files))

    def ask(self, kind: str, target: str, *lines: str, **more: Any) -> Any:
        with self.gateway.client(f"{kind}/public") as client:
            return client.send(request(target=target, lines=lines, **more)).response()


@pytest.fixture
def frontends(tmp_path: Path) -> Iterator[Frontends]:
    with ExitStack() as stack:
        yield Frontends(tmp_path, stack)


def test_accepted_without_warnings_together_and_alone() -> None:
    files = [str(ROOT / "examples" / "frontends" / f"{kind}.toml") for kind in KINDS]
    for chosen in ([*files], *([file] for file in files)):
        assert not load(*chosen, strict=True).warnings


def test_each_kind_of_client_has_its_own_gateway(frontends: Frontends) -> None:
    for kind, target, lines, upstream, seen in (
        ("mobile", "/api/me", (), "mobile/aggregator", "/me"),
        ("mobile", "/api/orders/7", (), "orders", "/7"),
        ("web", "/orders/7", (), "orders", "/orders/7"),
        ("web", "/", ("Cookie: a=b; tester=yes",), "shop-next", "/"),
        ("web", "/", ("X-Version: 2.1",), "shop-next", "/"),
        ("web", "/", ("X-Version: 20",), "shop", "/"),
        ("web", "/v2/cart", (), "shop-next", "/cart"),
        ("partner", "/v1/orders/7", (KEY,), "orders", "/orders/7"),
    ):
        answer = frontends.ask(kind, target, *lines)
        assert (answer.json()["upstream"], answer.json()["target"]) == (upstream, seen), (kind, target)
    assert frontends.ask("mobile", "/cart").status == 404
    assert frontends.ask("partner", "/v1/orders/7").status == 401
    assert frontends.ask("mobile", "/api/me", body=b"x" * 300_000, method="POST").status == 413
    names = [(record["listener"], record["route"]) for record in frontends.gateway.log]
    assert names == [] or set(names) <= {(f"{kind}/public", None) for kind in KINDS} | {
        (f"{kind}/public", f"{kind}/{route}") for kind in KINDS for route in ("api", "orders", "shop")
    } | {("web/public", f"web/shop-{which}") for which in ("testers", "by-header", "v2")}


def test_plugins_of_one_name_are_kept_apart(frontends: Frontends) -> None:
    statuses = [frontends.ask("mobile", "/api/").status for _ in range(22)]
    assert statuses[:20] == [200] * 20
    assert 429 in statuses[20:]
    assert frontends.ask("partner", "/v1/orders", KEY).status == 200
    assert "strict-transport-security" not in frontends.ask("web", "/")


def test_services_are_shared_and_one_file_changes_alone(frontends: Frontends) -> None:
    admin = Admin(frontends.gateway)
    assert [each["name"] for each in admin.ask("GET", "upstreams")["upstreams"]] == [
        "orders",
        "shop",
        "shop-next",
        "mobile/aggregator",
    ]
    web = frontends.folder / "web.toml"
    web.write_text(web.read_text().replace('prefix = "/v2"', 'prefix = "/v3"'))
    assert frontends.gateway.reload() == ["fastgate: reloaded (routes: 1 changed)"]
    assert frontends.ask("web", "/v3/cart").json()["target"] == "/cart"
    assert frontends.ask("mobile", "/api/me").status == 200
    admin.ask("POST", "rollback", body={})
    assert frontends.ask("web", "/v2/cart").json()["target"] == "/cart"
    bad = web.read_text()
    web.write_text(bad.replace("web", "web", 1) + "\n[admin]\n")
    [told] = [line for line in frontends.gateway.not_reload() if "written twice" in line]
    assert "web.toml" in told
    assert "shared/process.toml" in told
