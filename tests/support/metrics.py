"""What /metrics says, read by Prometheus' own parsers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import parser as plain
from prometheus_client.openmetrics import parser as openmetrics

from support.client import Address, Client, request
from support.gateway import Gateway

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
# What Prometheus 2.42 sends.
ACCEPT = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


class Scrape:
    """One answer. `families`: by the names of their samples without suffixes."""

    def __init__(self, families: Iterable[Any], text: str) -> None:
        self.families = {family.name: family for family in families}
        self.text = text
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def find(self, name: str, /, **labels: str) -> list[Any]:
        return [
            sample
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def sum(self, name: str, /, **labels: str) -> float:
        return float(sum(sample.value for sample in self.find(name, **labels)))

    def one(self, name: str, /, **labels: str) -> float:
        [sample] = self.find(name, **labels)
        return float(sample.value)


def scrape(at: Gateway | Address, accept: str = "") -> Scrape:
    """From the gateway's admin API, or from an address."""
    address = at.addresses["admin API"] if isinstance(at, Gateway) else at
    with Client(address, timeout=10) as client:
        lines = (f"Accept: {accept}",) if accept else ()
        answer = client.request(request("GET", "/metrics", host="localhost", lines=lines))
    assert answer.status == 200, answer.body
    text = answer.body.decode()
    if answer.get("content-type") == OPENMETRICS:
        read: Any = openmetrics.text_string_to_metric_families
        return Scrape(read(text), text)
    assert answer.get("content-type") == PLAIN
    return Scrape(plain.text_string_to_metric_families(text), text)


def wait_scrape(at: Gateway | Address, ready: Callable[[Scrape], bool], timeout: float = 5.0) -> Scrape:
    """Gauges are shown once a second: until it is so."""
    deadline = time.monotonic() + timeout
    while not ready(found := scrape(at)):
        assert time.monotonic() < deadline, f"not in {timeout} s:\n{found.text}"
        time.sleep(0.02)
    return found
