"""A fixed answer while a service is down on purpose."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

from fastgate.plugins import Busy, Exchange, Host, Plugin, PluginConfig, Response, Secret, doc

# How long one look at the switch file holds, in seconds.
LOOK_EVERY: Final = 1.0
# And how often the page is looked at.
PAGE_EVERY: Final = 5.0
MAX_BODY: Final = 1 << 20


class Maintenance(Plugin):
    """Answers in the service's place while one of its switches is on."""

    class Config(PluginConfig):
        enabled: Annotated[bool, doc("The switch in the configuration.")] = False
        file: Annotated[
            str, doc("A file that switches it on by being there; looked for once a second.", "file")
        ] = ""
        begin: Annotated[
            str, doc("Begin of a time window, such as `2030-01-31T22:00:00Z`. Empty: always.")
        ] = ""
        end: Annotated[str, doc("End of the time window. Empty: never.")] = ""
        status: Annotated[int, doc("Status of the answer.", ge=400, le=599)] = 503
        body: Annotated[str, doc("Body of the answer. Empty: problem+json.")] = ""
        body_file: Annotated[str, doc("A file with the body instead, at most 1 MiB.", "file")] = ""
        content_type: Annotated[str, doc("Media type of the body.", "header-value")] = (
            "text/html; charset=utf-8"
        )
        retry_after: Annotated[
            int, doc("`Retry-After`; within a time window what is left of it. 0: none.", "duration")
        ] = 0
        exempt: Annotated[
            tuple[str, ...], doc("Clients that are let through.", "cidr", one_or_many=True)
        ] = ()
        exempt_consumers: Annotated[
            tuple[str, ...], doc("Consumers that are let through.", "name", one_or_many=True)
        ] = ()
        exempt_header: Annotated[
            str, doc("A header that lets through who knows `exempt_secret`.", "set-header-name")
        ] = ""
        exempt_secret: Annotated[Secret | None, doc("What that header has to hold.", secret=True)] = None

    config: Config

    @classmethod
    def check(cls, config: Config) -> Mapping[str, str]:
        wrong = {}
        moments = {}
        for key in ("begin", "end"):
            try:
                moments[key] = _moment(getattr(config, key), 0)
            except ValueError:
                wrong[key] = "expected a time with its zone, such as 2030-01-31T22:00:00Z"
        if not wrong and config.begin and config.end and not moments["begin"] < moments["end"]:
            wrong["end"] = "must be behind begin"
        if bool(config.exempt_header) != bool(config.exempt_secret):
            wrong["exempt_header"] = "exempt_header and exempt_secret belong together"
        if config.body and config.body_file:
            wrong["body_file"] = "not with body"
        return wrong

    def __init__(self, config: Config, name: str) -> None:
        super().__init__(config, name)
        self._begin = _moment(config.begin, float("-inf"))
        self._end = _moment(config.end, float("inf"))
        self._window = bool(config.begin or config.end)
        self._networks = [ipaddress.ip_network(network) for network in config.exempt]
        self._secret = config.exempt_secret.reveal().encode() if config.exempt_secret else b""
        self._body = config.body.encode()
        self._file: Path | None = None
        self._looked = float("-inf")
        self._there = False

    def provision(self, host: Host) -> None:
        self._clock = host.clock
        if self.config.file:
            self._file = host.folder / self.config.file
        if self.config.body_file:
            self._page = host.folder / self.config.body_file
            self._body = self._read_page()
            host.spawn(self._watch_page(host), "watch body_file")

    def _read_page(self) -> bytes:
        with self._page.open("rb") as file:
            body = file.read(MAX_BODY + 1)
        if len(body) > MAX_BODY:
            raise ValueError(f"body_file is over {MAX_BODY} bytes")
        return body

    async def _watch_page(self, host: Host) -> None:
        seen = 0
        while True:
            await asyncio.sleep(PAGE_EVERY)
            try:
                changed = self._page.stat().st_mtime_ns
                if changed != seen:
                    self._body, seen = await host.in_thread(self._read_page), changed
            except (OSError, ValueError, Busy) as error:
                host.log.warning("body_file stays as it was: %s", error)

    def on_request(self, exchange: Exchange) -> Response | None:
        known = self._knows_secret(exchange)
        now = self._clock.now()
        if known or not self._is_on(now) or self._is_exempt(exchange):
            return None
        headers = {}
        wait = self.config.retry_after // 1_000_000_000
        if self._window and self._begin <= now < self._end < float("inf"):
            wait = max(1, int(self._end - now))
        if wait:
            headers["retry-after"] = str(wait)
        answer = exchange.refuse(self.config.status, "maintenance", "switched on", headers=headers)
        if self._body:
            answer.body = self._body
            answer.headers["content-type"] = self.config.content_type
        return answer

    def _is_on(self, now: float) -> bool:
        if self.config.enabled or (self._window and self._begin <= now < self._end):
            return True
        if self._file is None:
            return False
        moment = self._clock.monotonic()
        if moment >= self._looked + LOOK_EVERY:
            self._looked, self._there = moment, self._file.exists()
        return self._there

    def _knows_secret(self, exchange: Exchange) -> bool:
        if not self._secret:
            return False
        headers, name = exchange.request.headers, self.config.exempt_header
        given = headers.get_all(name)
        if given:
            del headers[name]  # the secret is none of the service's business
        return len(given) == 1 and hmac.compare_digest(given[0].encode("latin-1"), self._secret)

    def _is_exempt(self, exchange: Exchange) -> bool:
        consumer = exchange.consumer
        if consumer is not None and consumer.name in self.config.exempt_consumers:
            return True
        if not self._networks or not exchange.client_ip:
            return False
        address = ipaddress.ip_address(exchange.client_ip)
        return any(address in network for network in self._networks)


def _moment(text: str, otherwise: float) -> float:
    """Seconds since the epoch; ``otherwise`` where there is none. Raises ValueError, also without a zone."""
    if not text:
        return otherwise
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return moment.timestamp()
