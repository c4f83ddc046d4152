"""One whole file."""

from typing import Annotated

from msgspec import Struct

from fastgate.config.model.acme import Acme
from fastgate.config.model.basics import derived, doc
from fastgate.config.model.plugins import Plugin, SharedValues
from fastgate.config.model.route import Route
from fastgate.config.model.server import AccessLog, Admin, Dns, Listener, Metrics, Server
from fastgate.config.model.sources import Sources
from fastgate.config.model.tracing import Tracing, Why
from fastgate.config.model.upstream import Upstream


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One whole configuration file."""

    include: Annotated[
        tuple[str, ...],
        doc(
            'Other files whose tables belong to this one, relative to it: "upstreams/*.toml". Stands at the '
            "top, before any table.",
            "include",
        ),
    ] = ()
    server: Server = Server()
    admin: Admin | None = None
    metrics: Metrics | None = None
    dns: Dns = Dns()
    access_log: AccessLog = AccessLog()
    tracing: Tracing | None = None
    why: Why = Why()
    shared: SharedValues = SharedValues()
    listeners: Annotated[tuple[Listener, ...], doc("Where clients connect.", least=1)] = ()
    upstreams: Annotated[dict[str, Upstream], doc("Groups of endpoints, by name.", names="name")] = {}
    routes: Annotated[
        tuple[Route, ...],
        doc("Which requests go where. The order counts only between equally specific routes."),
    ] = ()
    plugins: Annotated[
        dict[str, Plugin],
        doc("Filters that listeners and routes use, by name; `use` says which.", names="name"),
    ] = {}
    acme: Annotated[
        dict[str, Acme], doc("ACME directories that issue certificates, by name.", names="name")
    ] = {}
    source: Annotated[str, derived("The path of the file; of several, the first.")] = ""
    sources: Annotated[Sources, derived("All files that were read.")] = Sources()
