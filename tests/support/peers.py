"""nginx: a real upstream for the gateway, and a yardstick for this harness."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from support.client import connect
from support.upstream import free_port

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")

_CONFIG = """
daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; keepalive_timeout 5s; client_max_body_size 0;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  server {{ listen 127.0.0.1:{port}; root {directory}/root; {server} }}
}}
"""


@contextlib.contextmanager
def nginx(directory: Path, server: str) -> Iterator[tuple[str, int]]:
    """Runs nginx with the given directives in its one server block; its files lie in `directory`/root."""
    assert NGINX is not None, "nginx is not installed"
    (directory / "root").mkdir(exist_ok=True)
    port = free_port()
    file = directory / "nginx.conf"
    file.write_text(_CONFIG.format(directory=directory, port=port, server=server))
    process = subprocess.Popen(
        [NGINX, "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(file)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                connect(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, process.stderr.read() if process.stderr else b""
                assert time.monotonic() < deadline, "nginx does not listen"
                time.sleep(0.02)
        yield "127.0.0.1", port
    finally:
        process.terminate()
        process.wait(10)
        if process.stderr:
            process.stderr.close()
