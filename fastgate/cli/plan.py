"""Tell what a configuration would change in the running gateway, without changing anything.

The file of -c is checked here, and compared by meaning with what is in force; then what that means for
listeners, connections and plugins. Where -c has another `admin.bind` than the running gateway, say with
--admin where that is. A secret from a variable that is not set here is supposed to be something.
Exit code 0: nothing would change; 2: something would; 1: it could not be told, or could not be put in force.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Final

from fastgate.cli.admin_client import add_admin_options, call
from fastgate.cli.common import load_or_tell

if TYPE_CHECKING:
    from fastgate.config.diff import Difference, ItemChange

_RESTART: Final = ("workers", "user", "watch", "state_dir")


def arguments(parser: argparse.ArgumentParser) -> None:
    add_admin_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    import msgspec

    from fastgate.cli.diff import sources_of
    from fastgate.config.diff import difference, lines
    from fastgate.config.problems import number, report, shown

    loaded = load_or_tell(args.config, look=True)
    if loaded is None:
        return 1
    for line in report(loaded.warnings):
        print(line, file=sys.stderr)
    found = difference(sources_of(args, "current"), loaded.config.sources)
    versions: list[dict[str, Any]] = call(args, "GET", "history")["versions"]
    means = consequences(found)
    current = next((each for each in versions if each["in_force"]), {"version": 0, "as_files": True})
    if args.json:
        answer = {
            "version": current["version"],
            "as_files": current["as_files"],
            "difference": found,
            "consequences": means,
            "warnings": report(loaded.warnings),
        }
        print(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
        return 2 if found else 0
    if not current["as_files"]:
        print(f"version {current['version']} is in force, which is not what its files said when last read")
    if not found:
        print(f"nothing would change against version {current['version']}")
        return 0
    for line in (*lines(found), "", *means):
        print(shown(line))
    counts = [each.change for each in found.items]
    told = ", ".join(f"{number(counts.count(word), 'thing')} {word}" for word in dict.fromkeys(counts))
    print(f"against version {current['version']}: {told or 'files beside it changed'}")
    return 2


def consequences(found: Difference) -> list[str]:
    """What a reload would do to what runs; the table of docs/operations.md, said of these changes."""
    out: list[str] = []
    for each in found.items:
        out += _OF.get(each.kind, lambda _: [])(each)
    if found.files:
        out.append("files beside the configuration are read again")
    untouched = [
        kind for kind in ("listener", "upstream", "plugin") if all(i.kind != kind for i in found.items)
    ]
    if untouched:
        out.append(f"every {' and '.join(untouched)} lives on as it is")
    return out


def _listener(each: ItemChange) -> list[str]:
    binds = [key for key in each.keys if key.key == "bind"]
    name = f"listener {each.name}"
    if each.change == "added":
        return [f"{name}: opened"]
    if each.change == "removed":
        return [f"{name}: closed; what runs on its connections ends first"]
    if binds:
        return [f"{name}: opened at {binds[0].new}, closed at {binds[0].old}; what runs there ends first"]
    return [f"{name}: its socket and its connections live on"]


def _upstream(each: ItemChange) -> list[str]:
    name = f"upstream {each.name}"
    if each.change == "added":
        return [f"{name}: begun; its endpoints are looked up and checked"]
    if each.change == "removed":
        return [f"{name}: its idle connections are closed; what runs there ends"]
    return [f"{name}: connections begun anew; endpoints that stay keep their state, weight and ejection"]


def _plugin(each: ItemChange) -> list[str]:
    name = f"plugin {each.name}"
    if each.change == "added":
        return [f"{name}: begun"]
    if each.change == "removed":
        return [f"{name}: ended, when no request needs it any more"]
    return [f"{name}: begun anew, with empty buckets and caches of its own"]


def _server(each: ItemChange) -> list[str]:
    late = [key.key for key in each.keys if key.key in _RESTART]
    out = [f"server.{key}: in force with a restart or `fastgate upgrade`" for key in late]
    if any(key.key in ("region", "zone") for key in each.keys):
        out.append("server: every upstream is begun anew, with what it knows of its endpoints")
    return out


def _access_log(each: ItemChange) -> list[str]:
    return ["access log: opened anew"]


def _dns(each: ItemChange) -> list[str]:
    return ["dns: every upstream is begun anew, with what it knows of its endpoints"]


_OF: Final = {
    "listener": _listener,
    "upstream": _upstream,
    "plugin": _plugin,
    "server": _server,
    "access_log": _access_log,
    "dns": _dns,
}
