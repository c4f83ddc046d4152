"""What holds of bodies and of clients that leave holds under TLS too, on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import test_bodies
from support import upstream as up
from support.gateway import Gateway
from support.tls import Pair, TlsClient, authority_file, client_context, server_certificate, server_context
from support.upstream import Upstream
from test_bodies import (  # noqa: F401  # run here
    test_answer_during_the_upload,
    test_bodies_both_ways_at_once,
    test_client_gone_abandons_the_attempt,
    test_client_gone_in_the_upload,
    test_early_answer_to_a_big_upload,
    test_events_are_not_held_back,
    test_half_close_abandon,
    test_half_close_between_requests,
    test_half_close_in_a_request_is_no_request,
    test_half_close_serve,
    test_head,
    test_http10_truncated_chunks_are_a_cut,
    test_request_body,
    test_response_body,
    test_response_body_to_http10,
    test_response_trailers,
)

CONTEXT = client_context()


class TlsGateway(Gateway):
    def client(self, listener: str | None = None, **options: Any) -> TlsClient:
        address = self.addresses[listener] if listener else self.address
        return TlsClient(address, context=CONTEXT, **options)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("certificates")
    return Pair(folder, "both", server_certificate("test.example", "127.0.0.1"))


@pytest.fixture(scope="module")
def module_upstream(pair: Pair) -> Iterator[Upstream]:
    with Upstream(tls=server_context(pair)) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def module_gateway(
    module_upstream: Upstream, pair: Pair, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    tables = test_bodies.gateway_config(module_upstream.address)
    folder = tmp_path_factory.mktemp("gateway")
    for listener in tables["listeners"]:
        listener["tls"] = {"certificates": [pair.table]}
    for upstream in tables["upstreams"].values():
        upstream["tls"] = {"ca": authority_file(folder)}
    with TlsGateway(tables, folder) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that ends a body by closing does so with close_notify."""
    monkeypatch.setattr(up, "close", up.goodbye)
