"""Two plugins in one file, a base that is none for use, and what is no plugin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fastgate.plugins import Exchange, Plugin, PluginConfig


class _Base(Plugin):
    pass


@dataclass(frozen=True)
class Limits:
    most: int = 3


@dataclass(frozen=True)
class OneConfig:
    label: str
    limits: Limits = field(default_factory=Limits)


class One(_Base):
    Config = OneConfig


class Two(_Base):
    pass


class NoPlugin:
    pass


@dataclass
class Thawed:
    label: str = ""


class WithThawed(Plugin):
    Config = Thawed


class WithSet(Plugin):
    class Config(PluginConfig):
        names: set[str] | None = None


class WithCallable(Plugin):
    class Config(PluginConfig):
        inner: tuple[Limits, ...] = ()
        hook: Callable[[], None] | None = None


class WithTimeout(Plugin):
    class Config(PluginConfig):
        timeout: int = 1


class Careless(Plugin):
    def on_reqest(self, exchange: Exchange) -> None:
        """A typo."""

    def on_response_body(self, exchange: Exchange, chunk: bytes, end: bool) -> bytes:
        return chunk
