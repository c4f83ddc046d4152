"""A plugin of which every kind of key is tried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import field

from fastgate.plugins import Exchange, Plugin, PluginConfig, Rate, Response, Secret, doc


class Greeting(PluginConfig):
    """One greeting."""

    text: Annotated[str, doc("What is said.")]
    times: Annotated[int, doc("How often.", ge=1, le=9)] = 1


class GreeterConfig(PluginConfig):
    greeting: str = "hello"
    loud: bool = False
    count: int = 1
    volume: float = 1.5
    least: Annotated[float, doc("The least of it.", ge=0)] = 0.0
    tone: Literal["friendly", "stern"] = "friendly"
    names: tuple[str, ...] = ()
    wait: Annotated[int, doc("How long.", "duration")] = 0
    rate: Annotated[Rate | None, doc("How fast.", "rate")] = None
    header: Annotated[str, doc("Where it is told.", "header-name")] = "x-greeting"
    token: Annotated[Secret | None, doc("What opens the door.", secret=True)] = None
    words: dict[str, int] = field(default_factory=dict)
    first: Greeting = Greeting(text="hi")
    more: Annotated[tuple[Greeting, ...], doc("And then.")] = ()
    by_name: Annotated[dict[str, Greeting], doc("For some.", names="name")] = field(default_factory=dict)
    asks: Annotated[str | None, doc("Whom it asks.", "upstream-ref")] = None
    after: Annotated[tuple[str, ...], doc("Others.", "plugin-ref", one_or_many=True)] = ()


class Greeter(Plugin):
    """Says hello."""

    Config = GreeterConfig
    config: GreeterConfig

    @classmethod
    def check(cls, config: Any) -> Mapping[str, str]:
        if config.loud and config.volume < 1:
            return {"volume": "a loud greeting has a volume of at least 1"}
        if len(config.more) > 1 and config.more[1].text == config.more[0].text:
            return {"more.1.text": "this was said already"}
        return {"": "it says nothing"} if not config.greeting and not config.more else {}

    async def on_request(self, exchange: Exchange) -> Response | None:
        exchange.request.headers[self.config.header] = self.config.greeting
        return None
