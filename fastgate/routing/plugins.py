"""The plugins that a request meets, as `fastgate explain` shows them."""

from __future__ import annotations

from msgspec import Struct

from fastgate.config.model import Config, IpFilter, Listener, PluginUse, RateLimit, Route


class PluginShown(Struct, frozen=True, kw_only=True):
    """`phases`: those that it has, "request" for `on_request`; none where it is `native`, and runs before the
    request goes on."""

    name: str
    use: str
    native: bool
    phases: tuple[str, ...]


def plugins_of(config: Config, listener: Listener, route: Route) -> tuple[PluginShown, ...]:
    """Those of the listener, then those of the route, each once."""
    names = dict.fromkeys([*listener.plugins, *route.plugins])
    return tuple(_shown(name, config.plugins[name]) for name in names)


def describe_plugin(one: PluginShown) -> str:
    return f"{one.name} ({one.use}: {'native' if one.native else ', '.join(one.phases) or 'no phase'})"


def _shown(name: str, plugin: RateLimit | IpFilter | PluginUse) -> PluginShown:
    if isinstance(plugin, PluginUse):
        return PluginShown(name=name, use=plugin.use, native=False, phases=_phases(plugin))
    use = "rate-limit" if isinstance(plugin, RateLimit) else "ip-filter"
    return PluginShown(name=name, use=use, native=True, phases=())


def _phases(plugin: PluginUse) -> tuple[str, ...]:
    from fastgate.plugins import PHASES, Plugin

    return tuple(
        phase.removeprefix("on_")
        for phase in PHASES
        if getattr(plugin.plugin, phase) is not getattr(Plugin, phase)
    )
