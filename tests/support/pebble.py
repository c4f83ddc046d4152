"""A real ACME directory (pebble) on free loopback ports, which validates; every name is 127.0.0.1."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType

from cryptography import x509

from support.certificates import issue
from support.upstream import free_port

EAB_KEY = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"


class Pebble:
    """http_port, tls_port: where it looks for challenges. nonce_reject: of a hundred good nonces, so many are
    refused. eab: accounts need a binding, kid "kid-1" and ``EAB_KEY``. Starting it anew forgets all."""

    def __init__(
        self,
        folder: Path,
        *,
        http_port: int = 0,
        tls_port: int = 0,
        nonce_reject: int = 5,
        eab: bool = False,
        chain: int = 1,
    ) -> None:
        self.folder = folder
        self.port, self.manage, self._dns, self._names = (free_port() for _ in range(4))
        self.http_port, self.tls_port = http_port or free_port(), tls_port or free_port()
        self.ca_file = folder / "directory-ca.pem"
        self._eab = eab
        self._environment = {
            **os.environ,
            "PEBBLE_VA_NOSLEEP": "1",
            "PEBBLE_AUTHZREUSE": "0",
            "PEBBLE_WFE_NONCEREJECT": str(nonce_reject),
            "PEBBLE_CHAIN_LENGTH": str(chain),
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def directory(self) -> str:
        return f"https://127.0.0.1:{self.port}/dir"

    def __enter__(self) -> Pebble:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        if not self.ca_file.exists():
            authority = issue("CN=the directory's own", ca=True)
            name = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            own = issue("CN=directory", name, by=authority, server=True)
            self.ca_file.write_text(authority.pem)
            (self.folder / "directory.pem").write_text(own.pem)
            (self.folder / "directory.key").write_text(own.key_pem)
        config = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self.manage}",
            "certificate": str(self.folder / "directory.pem"),
            "privateKey": str(self.folder / "directory.key"),
            "httpPort": self.http_port,
            "tlsPort": self.tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": self._eab,
            "externalAccountMACKeys": {"kid-1": EAB_KEY},
        }
        file = self.folder / "pebble.json"
        file.write_text(json.dumps({"pebble": config}))
        dns = f"127.0.0.1:{self._dns}"
        self._run(
            "pebble-challtestsrv", "-dns01", dns, "-defaultIPv6", "", "-http01", "", "-https01", "",
            "-tlsalpn01", "", "-management", f"127.0.0.1:{self._names}",
        )  # fmt: skip
        self._run("pebble", "-config", str(file), "-dnsserver", dns, "-strict")
        deadline = time.monotonic() + 15
        while not self._answers():
            assert time.monotonic() < deadline, "pebble does not answer"
            time.sleep(0.02)

    def _run(self, name: str, *arguments: str) -> None:
        program = shutil.which(name)
        assert program, f"{name} is not installed (Debian: pebble)"
        with open(self.folder / f"{name}.log", "ab") as log:
            self._processes.append(
                subprocess.Popen([program, *arguments], env=self._environment, stdout=log, stderr=log)
            )

    def _ask(self, port: int, path: str) -> bytes:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        with urllib.request.urlopen(f"https://127.0.0.1:{port}{path}", timeout=5, context=context) as answer:
            body: bytes = answer.read()
            return body

    def _answers(self) -> bool:
        try:
            return b"newOrder" in self._ask(self.port, "/dir")
        except OSError:
            return False

    def point(self, name: str, address: str) -> None:
        """From now on it looks for that name there, until it is started anew."""
        for path in ("clear-a", "add-a"):
            body = json.dumps({"host": name, "addresses": [address]}).encode()
            urllib.request.urlopen(f"http://127.0.0.1:{self._names}/{path}", body, timeout=5).close()

    def root(self) -> str:
        """What its certificates lead to, PEM; a new one after each start."""
        return self._ask(self.manage, "/roots/0").decode()

    def log(self) -> str:
        return (self.folder / "pebble.log").read_text()

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()
