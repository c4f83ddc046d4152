"""Gateways in Node, of some lines: undici behind Node's own http server, and behind Express."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from bench.model import AGGREGATE, Feature, route_prefix
from bench.peers.base import KEEP_ALIVE, NATIVE, POOL, Peer, Place, find, first_line, need

PACKAGES = {"undici": "7.30.2", "express": "5.1.0"}
FOLDER = NATIVE / "node"
PROGRAM = Path(__file__).with_suffix(".js")
INSTALL_SECONDS = 120


@functools.cache
def install() -> str | None:
    """The packages of npm into a folder of ours, at these versions, once. What is wrong, or None."""
    absent = [name for name in ("node", "npm") if find(name) is None]
    if absent:
        return f"{' and '.join(absent)} (Node 20 or later)"
    wanted = json.dumps({"private": True, "dependencies": PACKAGES})
    listed = FOLDER / "package.json"
    # Written last: half an installation is none.
    if not (listed.exists() and listed.read_text() == wanted):
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        command = [
            need("npm"),
            "install",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--prefix",
            str(FOLDER),
        ]
        command += [f"{name}@{version}" for name, version in PACKAGES.items()]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False, cwd=FOLDER
            )
        except subprocess.TimeoutExpired:
            return f"what npm should have installed in {INSTALL_SECONDS} s"
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["(nothing)"])[-1]
            return f"what npm could not install ({said})"
        listed.write_text(wanted)
    # From there `require` finds them.
    (FOLDER / "gateway.js").write_text(PROGRAM.read_text())
    return None


class Node(Peer):
    """bench/peers/node.js, one process."""

    name = "node"
    title = "Node, undici"
    features = frozenset({Feature.AGGREGATION})
    install = "nodejs.org"
    kind: ClassVar[str] = "plain"
    notes: ClassVar[tuple[str, ...]] = (
        "node:http before an undici pool without pipelining; an aggregation is Promise.all over its parts, "
        "JSON.parse and JSON.stringify",
    )

    def missing(self) -> str | None:
        return install()

    def version(self) -> str:
        return f"Node {first_line([need('node'), '--version'])}, undici {PACKAGES['undici']}"

    def command(self, place: Place) -> list[str]:
        parts = json.dumps(place.shape.part_paths())
        return [
            need("node"), str(FOLDER / "gateway.js"), self.kind, str(place.port), str(place.upstream_port),
            str(POOL), str(KEEP_ALIVE), f"{route_prefix(0)}/", f"{route_prefix(0)}{AGGREGATE}", parts,
        ]  # fmt: skip

    def environment(self, place: Place) -> Mapping[str, str]:
        del place
        return {"NODE_ENV": "production"}


class Express(Node):
    """The same behind Express."""

    name = "express"
    title = "Express, undici"
    kind = "express"
    notes: ClassVar[tuple[str, ...]] = ("the same as Node's, behind Express's router",)

    def version(self) -> str:
        return f"Express {PACKAGES['express']}, undici {PACKAGES['undici']}"
