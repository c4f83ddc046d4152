"""Plugins in plain async Python: the API (``from fastgate.plugins import Plugin, ...``), and a file or
folder for each plugin that ships. A plugin sees this package and nothing else of the gateway.
"""

from fastgate._core import ExchangeView as Exchange
from fastgate._core import GatewayError, Headers, Request, Response, RetryPolicy, SubrequestError, SubResponse
from fastgate.aggregation.gather import Gather, Mapped, Part, PartFailure, PartsFailed
from fastgate.config.model.basics import Rate, Secret, doc
from fastgate.plugins.api import (
    PHASES,
    Busy,
    Clock,
    Consumer,
    Host,
    NoConfig,
    Plugin,
    PluginConfig,
    Shared,
)

__all__ = [
    "PHASES", "Busy", "Clock", "Consumer", "Exchange", "GatewayError", "Gather", "Headers", "Host", "Mapped",
    "NoConfig", "Part", "PartFailure", "PartsFailed", "Plugin", "PluginConfig", "Rate", "Request", "Response",
    "RetryPolicy", "Secret", "Shared", "SubResponse", "SubrequestError", "doc",
]  # fmt: skip
