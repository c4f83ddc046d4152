from __future__ import annotations

from pathlib import Path as FilePath

import msgspec

from fastgate.config.model import Config
from fastgate.config.problems import Problems


def check_rules(config: Config, base: FilePath, problems: Problems) -> Config:
    named = msgspec.structs.replace
    return replace(
        config,
        upstreams={name: named(u, name=name) for name, u in config.upstreams.items()},
        plugins={name: named(p, name=name) for name, p in config.plugins.items()},
    )


replace = msgspec.structs.replace
