"""Print the JSON Schema (draft 2020-12) of the configuration file, for editors that check TOML as it is
written.

Of the plugins, it knows the keys of those that ship; with -c those of all that this configuration uses.
Exit code 0: printed; 1: bad configuration.
"""

from __future__ import annotations

import argparse
import json

from fastgate.cli.common import load_or_tell


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="a configuration that uses plugins of your own (default: none)"
    )


def main(args: argparse.Namespace) -> int:
    from fastgate.config.model import PluginUse
    from fastgate.config.schema import config_schema

    plugins = {}
    if args.config is not None:
        loaded = load_or_tell([args.config])
        if loaded is None:
            return 1
        uses = [one for one in loaded.config.plugins.values() if isinstance(one, PluginUse)]
        plugins = {one.use: one.plugin for one in uses}
    print(json.dumps(config_schema(plugins), indent=2, ensure_ascii=False))
    return 0
