"""What a peer is: it writes its configuration for a shape into a folder and says how it is started."""

from __future__ import annotations

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench.model import Feature, Shape

KEEP_ALIVE = 75  # seconds an idle downstream connection may stay: longer than any run
POOL = 1024  # upstream connections that a peer may keep
TRIES = 3  # of a request, where a peer retries
CONNECT_MS = 250  # to open a connection to an endpoint that may have failed
CHECK_MS = 500  # between two active checks of an endpoint
CHECK_TIMEOUT_MS = 300
CHECK_TIMES = 2  # results in a row that change what is thought of an endpoint
NATIVE = Path(__file__).parent.parent / "build"  # compiled C pieces


@dataclass(frozen=True)
class Place:
    """Where a peer runs: a folder of its own, its port and the endpoints' on 127.0.0.1, its work's shape."""

    folder: Path
    port: int
    upstream_ports: tuple[int, ...]
    shape: Shape
    admin_port: int = 0  # where the peer is operated, if the shape asks for that

    @property
    def log(self) -> Path:
        """The access log, where the peer writes one to a file."""
        return self.folder / "access.log"

    @property
    def upstream_port(self) -> int:
        """The first endpoint's, for peers that know only one."""
        return self.upstream_ports[0]

    def certificate(self) -> tuple[Path, Path]:
        """A certificate for any name, with an ECDSA key, and the key. Made with openssl."""
        cert, key = self.folder / "cert.pem", self.folder / "key.pem"
        if not key.exists():
            command = [
                need("openssl"),
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ]
            command += ["-nodes", "-days", "30", "-subj", "/CN=api.example.com", "-out", str(cert)]
            subprocess.run([*command, "-keyout", str(key)], check=True, capture_output=True)
        return cert, key

    def write(self, name: str, text: str) -> Path:
        """A file of the peer's folder, there at once: a peer may be watching."""
        path = self.folder / name
        path.with_name(f"{name}.new").write_text(text)
        return path.with_name(f"{name}.new").rename(path)


class Peer(ABC):
    """One gateway to measure. Stateless: what it needs for a run is in the Place."""

    name: ClassVar[str]
    title: ClassVar[str]
    features: ClassVar[frozenset[Feature]] = frozenset(Feature) - {Feature.AGGREGATION}
    # What the configuration is, and in what it is not the same as the others'; shown in the report.
    notes: ClassVar[tuple[str, ...]] = ()
    install: ClassVar[str] = "python -m bench --setup"
    # A relay that ignores features is the floor of every scenario, not a contestant.
    floor: ClassVar[bool] = False
    idle_connections: ClassVar[int | None] = (
        None  # fewer than the scenario's, where one costs two descriptors
    )

    @abstractmethod
    def missing(self) -> str | None:
        """What is not there on this machine, or None."""

    @abstractmethod
    def version(self) -> str:
        """The version, one line."""

    @abstractmethod
    def command(self, place: Place) -> list[str]:
        """Writes the configuration; the command that starts the peer in the foreground."""

    def environment(self, place: Place) -> Mapping[str, str]:
        """Variables to add for the command."""
        del place
        return {}

    def lacks(self, shape: Shape) -> frozenset[Feature]:
        """The features of a shape that this peer has not got."""
        asked = shape.features()
        # The floor ignores features; but it has one answer for one request.
        return asked & {Feature.AGGREGATION} if self.floor else asked - self.features


def find(program: str) -> str | None:
    """A program's path; Debian keeps daemons outside a user's PATH."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def need(program: str) -> str:
    """A program's path; FileNotFoundError where it is not installed."""
    path = find(program)
    if path is None:
        raise FileNotFoundError(f"{program} is not installed; {Peer.install}")
    return path


def first_line(command: list[str]) -> str:
    """The first line that a command prints, on either stream."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else "unknown"
