"""Real clients through the gateway, and a real server behind it: what they send is not what we would
write."""

from __future__ import annotations

import asyncio
import hashlib
import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest
from support.client import request
from support.gateway import Gateway, config
from support.handlers import pattern
from support.peers import nginx

SERVER = """
  location / { try_files $uri =404; }
  location /echo {
    client_body_buffer_size 16m; add_header X-Method $request_method; return 200 "$request_uri\\n";
  }
  location /error { return 503 "busy"; }
  location /redirect { return 302 /small; }
  location /auth { auth_basic "x"; auth_basic_user_file /dev/null; }
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("nginx")
    (directory / "root").mkdir()
    (directory / "root" / "small").write_bytes(b"hello\n")
    (directory / "root" / "big").write_bytes(pattern(20_000_000))
    return directory


@pytest.fixture(scope="module")
def gateway(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with (
        nginx(root, SERVER) as (host, port),
        Gateway(config(f"{host}:{port}"), tmp_path_factory.mktemp("gateway")) as gateway,
    ):
        yield gateway


def test_nginx_as_the_upstream(gateway: Gateway) -> None:
    with gateway.client() as client:
        for _ in range(3):
            response = client.get("/small")
            assert (response.status, response.body) == (200, b"hello\n")
            assert str(response.get("server")).startswith("nginx")
        etag = response.get("etag")
        assert client.get("/small", f"If-None-Match: {etag}").status == 304
        part = client.get("/big", "Range: bytes=100-199")
        assert (part.status, part.body) == (206, pattern(20_000_000)[100:200])
        assert client.request(request("HEAD", "/big")).get("content-length") == "20000000"
        assert client.get("/nowhere").status == 404
        assert client.get("/error").body == b"busy"
        assert client.get("/redirect").status == 302
        assert client.get("/auth").status in (401, 403)
        assert client.request(request("DELETE", "/small")).status == 405
        assert (
            hashlib.sha256(client.get("/big").body).digest() == hashlib.sha256(pattern(20_000_000)).digest()
        )


def test_nginx_keep_alive_is_used(gateway: Gateway) -> None:
    since = gateway.mark()
    with gateway.client() as client:
        for _ in range(1100):  # nginx closes a connection after keepalive_requests (1000)
            assert client.get("/small").status == 200
    assert len(gateway.wait_log(since, 1100)) == 1100


CURL = shutil.which("curl")


def curl(*arguments: str) -> tuple[int, str]:
    assert CURL is not None, "curl is not installed"
    result = subprocess.run(
        [CURL, "-sS", "--max-time", "20", *arguments],
        capture_output=True,
        text=True,
        check=False,
        errors="replace",
    )
    assert not result.stderr, result.stderr
    return result.returncode, result.stdout


def test_curl(gateway: Gateway, tmp_path: Path) -> None:
    url = gateway.url
    assert curl(f"{url}/small", f"{url}/small") == (0, "hello\nhello\n")
    assert curl("-I", f"{url}/small")[1].startswith("HTTP/1.1 200 OK")
    assert curl("--http1.0", f"{url}/small") == (0, "hello\n")
    assert curl("-d", "a=b", f"{url}/echo?x=%20") == (0, "/echo?x=%20\n")
    big = tmp_path / "big"
    big.write_bytes(pattern(3_000_000))
    # curl sends Expect: 100-continue with a body of this size.
    assert curl("--data-binary", f"@{big}", f"{url}/echo") == (0, "/echo\n")
    assert curl("-T", str(big), "-H", "Transfer-Encoding: chunked", "-H", "Expect:", f"{url}/echo")[0] == 0
    assert curl("-L", f"{url}/redirect") == (0, "hello\n")
    assert curl("--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", f"{url}/../x")[1] == "400"
    # An upgrade to HTTP/2 that nobody allows is not an error.
    assert curl("--http2", f"{url}/small") == (0, "hello\n")


async def test_httpx(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20) as client:
        responses = await asyncio.gather(*(client.get("/small") for _ in range(100)))
        assert {response.text for response in responses} == {"hello\n"}

        async def chunks() -> object:
            for _ in range(10):
                yield b"x" * 1000

        assert (await client.post("/echo", content=chunks())).text == "/echo\n"  # type: ignore[arg-type]
        async with client.stream("GET", "/big") as stream:
            digest = hashlib.sha256()
            async for piece in stream.aiter_bytes():
                digest.update(piece)
        assert digest.digest() == hashlib.sha256(pattern(20_000_000)).digest()
        with pytest.raises(httpx.HTTPStatusError):
            (await client.get("/error")).raise_for_status()


async def test_aiohttp(gateway: Gateway) -> None:
    async with aiohttp.ClientSession(gateway.url) as session:

        async def get(number: int) -> str:
            async with session.get(f"/echo?n={number}") as response:
                return await response.text()

        assert await asyncio.gather(*(get(n) for n in range(200))) == [f"/echo?n={n}\n" for n in range(200)]
        async with session.post("/echo", data=io.BytesIO(pattern(2_000_000))) as response:
            assert response.status == 200
        async with session.get("/big") as response:
            assert (
                hashlib.sha256(await response.read()).digest() == hashlib.sha256(pattern(20_000_000)).digest()
            )
