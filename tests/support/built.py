"""A configuration compiled for a worker that no gateway runs."""

from __future__ import annotations

import weakref
from pathlib import Path

from fastgate import _core
from fastgate.config import Config, model
from fastgate.server.build import Snapshot, build, lay_ground
from fastgate.server.common import Common
from fastgate.server.plugin_services import Services, SystemClock
from fastgate.server.plugins import PreparedPlugins, RunningPlugin
from fastgate.server.redis_limits import RedisLimits
from fastgate.server.shared_store import HostMemory, HostStore
from fastgate.server.upstreams import Estate


def built(config: Config, worker: _core.Worker) -> tuple[Snapshot, PreparedPlugins]:
    """Its plugins in Python are made, not provisioned."""
    estate = Estate(Common(config))
    ground = lay_ground(config, worker, estate)
    services = Services(worker, SystemClock())
    memory = HostMemory("", 64)
    running = {
        name: RunningPlugin(use, services, Path(), HostStore(memory, name))
        for name, use in config.plugins.items()
        if isinstance(use, model.PluginUse)
    }
    plugins = PreparedPlugins(config, running, ground.cores)
    weakref.finalize(plugins, memory.close)
    return build(config, ground, estate, plugins, RedisLimits()), plugins
