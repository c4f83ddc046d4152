"""A configuration without plugins in Python, compiled for a worker that no gateway runs."""

from __future__ import annotations

from fastgate import _core
from fastgate.config import Config
from fastgate.server.build import Snapshot, build, lay_ground
from fastgate.server.plugins import PreparedPlugins
from fastgate.server.upstreams import Estate


def built(config: Config, worker: _core.Worker) -> Snapshot:
    estate = Estate()
    ground = lay_ground(config, worker, estate)
    return build(config, ground, estate, PreparedPlugins(config, {}, ground.cores))
