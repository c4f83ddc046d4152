"""The typed configuration: what the rest of fastgate reads, complete with defaults and free of doubt.

Every struct is frozen. Durations are integer nanoseconds, sizes integer bytes (``UNLIMITED`` is -1),
percentages floats, arrays tuples; a table that may be absent is None then. The same annotations make the
decoder, the JSON Schema and docs/configuration.md, so each key says here what it is: ``doc(description,
form=...)`` names the textual form (see forms.py) where TOML and Python differ, ``derived`` marks attributes
that are computed and cannot be written.
"""

from fastgate.config.model.acme import Acme, AcmeRenewal, AcmeStorage, ExternalAccount
from fastgate.config.model.actions import (
    Fallback,
    Fault,
    Mirror,
    Redirect,
    Respond,
    Rollback,
    Split,
    SplitOverride,
    SplitTarget,
)
from fastgate.config.model.aggregate import Aggregate, ForEach, GraphQl, ListFilter, Part, When
from fastgate.config.model.basics import UNLIMITED, Rate, Secret, StatusRange
from fastgate.config.model.health import HealthCheck, Outlier
from fastgate.config.model.plugins import IpFilter, Plugin, PluginUse, RateLimit, RedisPlace, SharedValues
from fastgate.config.model.resilience import Breaker, Concurrency, Hedge, Retry
from fastgate.config.model.root import Config
from fastgate.config.model.route import (
    Condition,
    HeaderRules,
    Match,
    Rewrite,
    Route,
    RouteLimits,
    RouteTimeouts,
)
from fastgate.config.model.server import (
    AccessLog,
    Admin,
    AdminTls,
    Dns,
    Listener,
    ListenerLimits,
    ListenerTimeouts,
    Metrics,
    Server,
)
from fastgate.config.model.sources import Sources
from fastgate.config.model.tls import Certificate, ClientAuth, ListenerTls, UpstreamTls
from fastgate.config.model.tracing import Tracing, Why
from fastgate.config.model.upstream import (
    Endpoint,
    EndpointsFile,
    Hash,
    ListedEndpoint,
    Pool,
    Regions,
    Sticky,
    Upstream,
    UpstreamLimits,
    UpstreamTimeouts,
)

__all__ = [
    "UNLIMITED",
    "AccessLog",
    "Acme",
    "AcmeRenewal",
    "AcmeStorage",
    "Admin",
    "AdminTls",
    "Aggregate",
    "Breaker",
    "Certificate",
    "ClientAuth",
    "Concurrency",
    "Condition",
    "Config",
    "Dns",
    "Endpoint",
    "EndpointsFile",
    "ExternalAccount",
    "Fallback",
    "Fault",
    "ForEach",
    "GraphQl",
    "Hash",
    "HeaderRules",
    "HealthCheck",
    "Hedge",
    "IpFilter",
    "ListFilter",
    "ListedEndpoint",
    "Listener",
    "ListenerLimits",
    "ListenerTimeouts",
    "ListenerTls",
    "Match",
    "Metrics",
    "Mirror",
    "Outlier",
    "Part",
    "Plugin",
    "PluginUse",
    "Pool",
    "Rate",
    "RateLimit",
    "Redirect",
    "RedisPlace",
    "Regions",
    "Respond",
    "Retry",
    "Rewrite",
    "Rollback",
    "Route",
    "RouteLimits",
    "RouteTimeouts",
    "Secret",
    "Server",
    "SharedValues",
    "Sources",
    "Split",
    "SplitOverride",
    "SplitTarget",
    "StatusRange",
    "Sticky",
    "Tracing",
    "Upstream",
    "UpstreamLimits",
    "UpstreamTimeouts",
    "UpstreamTls",
    "When",
    "Why",
]  # fmt: skip
