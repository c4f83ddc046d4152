"""Configuration: TOML to a typed, checked, immutable model; every error with file, line, column and a
suggestion."""

from fastgate.config.loading import Loaded, load, load_sources, load_tables, loads
from fastgate.config.model import Config, Sources
from fastgate.config.problems import ConfigError, Problem

__all__ = [
    "Config",
    "ConfigError",
    "Loaded",
    "Problem",
    "Sources",
    "load",
    "load_sources",
    "load_tables",
    "loads",
]
