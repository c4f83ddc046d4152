"""fastgate: an API gateway with a compiled hot path, programmable in plain async Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastgate.embed import (
        ConfigError,
        Explanation,
        Gateway,
        OpenError,
        PluginError,
        ReloadError,
        ReloadResult,
    )

__version__ = "0.1.0"

__all__ = ["ConfigError", "Explanation", "Gateway", "OpenError", "PluginError", "ReloadError", "ReloadResult"]


def __getattr__(name: str) -> Any:
    # On first use: `fastgate --help` needs none of it.
    if name in __all__:
        from fastgate import embed

        return getattr(embed, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
