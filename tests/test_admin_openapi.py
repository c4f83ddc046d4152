"""The admin API keeps to its own OpenAPI document: schemathesis sends it right and wrong requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from support.gateway import ROOT, Gateway, config
from support.upstream import Upstream

from fastgate.server.admin_openapi import MARK, document, markdown
from fastgate.server.admin_resources import RESOURCES

# What ends the gateway is asked for elsewhere.
DOCUMENT: dict[str, Any] = json.loads(json.dumps(document()))
schema = schemathesis.openapi.from_dict(DOCUMENT).exclude(path=["/drain", "/upgrade"])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("openapi")
    with Upstream() as upstream:
        tables = config(
            upstreams={
                "up": {"endpoints": [upstream.address]},
                "next": {"endpoints": [upstream.address]},
            },
            routes=[
                {
                    "name": "shop",
                    "split": {"to": [{"upstream": "up", "weight": 95}, {"upstream": "next", "weight": 5}]},
                },
                {"name": "no", "match": {"prefix": "/no"}, "respond": {"status": 404}},
            ],
        )
        with Gateway(tables | {"admin": {"bind": "127.0.0.1:0"}}, folder) as gateway:
            with gateway.client() as client:
                assert client.get("/no/thing").status == 404
            yield gateway


@schema.parametrize()
@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_it_keeps_to_its_document(case: schemathesis.Case[Any], running: Gateway) -> None:
    address = running.addresses["admin API"]
    assert not isinstance(address, str)
    # A well-formed If-Match is still refused where it is not what is in force.
    excluded: list[Any] = (
        [positive_data_acceptance]
        if case.operation.path in ("/reload", "/rollback", "/certificates/reload")
        else []
    )
    case.call_and_validate(base_url=f"http://127.0.0.1:{address[1]}", timeout=10, excluded_checks=excluded)


def test_every_answer_that_succeeds_is_as_it_is_described(running: Gateway) -> None:
    """With names that are there, which generated requests do not guess."""
    endpoint = running.admin("/upstreams/up")["endpoints"][0]["address"]
    with running.client() as client:
        refused = client.request(b"GET / HTTP/1.1\r\n\r\n").get("x-request-id")
    asked: dict[tuple[str, str], tuple[str, object]] = {
        ("GET", "/routes/{route}/split"): ("/routes/shop/split", None),
        ("PUT", "/routes/{route}/split"): ("/routes/shop/split", {"weights": {"next": 7}}),
        ("GET", "/upstreams/{upstream}"): ("/upstreams/up", None),
        ("GET", "/requests/{request}"): (f"/requests/{refused}", None),
        ("PUT", "/upstreams/{upstream}/endpoints/{endpoint}"): (
            f"/upstreams/up/endpoints/{endpoint}",
            {"weight": 3},
        ),
        ("PUT", "/log-level"): ("/log-level", {"level": "info"}),
        ("POST", "/reload"): ("/reload", {}),
        ("POST", "/certificates/reload"): ("/certificates/reload", {}),
        ("GET", "/history/{version}"): ("/history/current", None),
        ("GET", "/history/{old}/diff/{new}"): ("/history/1/diff/1", None),
        ("POST", "/rollback"): ("/rollback", {"version": 1}),
    }
    served = running.admin("/openapi.json")
    assert served == DOCUMENT
    for resource in RESOURCES:
        if resource.path in ("/drain", "/upgrade") or resource.answer is None:
            continue
        path, body = asked.get((resource.method, resource.path), (resource.path, None))
        assert "{" not in path
        answer = running.admin(path, resource.method, body)
        media = served["paths"][resource.path][resource.method.lower()]["responses"]["200"]["content"]
        validator = jsonschema.Draft202012Validator(
            {**media["application/json"]["schema"], "components": served["components"]}
        )
        validator.validate(answer)


def test_the_document_is_valid() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    schema.validate()
    identifiers = [one["operationId"] for path in DOCUMENT["paths"].values() for one in path.values()]
    assert len(identifiers) == len(set(identifiers)) == len(RESOURCES)


def test_the_page_of_it_is_up_to_date() -> None:
    written = Path(ROOT / "docs/admin-api.md").read_text().partition(MARK)[2]
    assert written == markdown(), "python -m fastgate.server.admin_openapi docs/admin-api.md"
