"""Takes the caller's word for who it is, for tests of what comes after."""

from __future__ import annotations

from fastgate.plugins import Consumer, Exchange, Plugin


class Known(Plugin):
    def on_request(self, exchange: Exchange) -> None:
        name = exchange.request.headers.get("x-who")
        if name:
            # As bytes of UTF-8: names are not ASCII everywhere.
            exchange.consumer = Consumer(name=name.encode("latin-1").decode(), source=self.name)
