"""A program that embeds the gateway has certificates from a directory, too."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from support.pebble import Pebble

from fastgate import Gateway


async def test_certificates_are_issued_and_the_end_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "pebble"
    folder.mkdir()
    with Pebble(folder) as pebble:
        tables = {
            "acme": {
                "test": {
                    "directory": pebble.directory,
                    "ca_file": str(pebble.ca_file),
                    "terms_agreed": True,
                    "storage": {"path": str(tmp_path / "store")},
                }
            },
            "access_log": {"enabled": False},
            "listeners": [
                {"name": "plain", "bind": f"127.0.0.1:{pebble.http_port}"},
                {
                    "name": "secure",
                    "bind": f"127.0.0.1:{pebble.tls_port}",
                    "tls": {"acme": "test", "domains": ["one.example.com"]},
                },
            ],
            "routes": [{"name": "all", "respond": {"status": 200, "body": "a route"}}],
        }
        async with Gateway(tables) as gateway:
            operations = gateway.operations
            (view,) = await operations.acme()
            assert view.name == "test"
            async with asyncio.timeout(20):
                while (await operations.acme())[0].certificates[0].state != "valid":  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            context = ssl.create_default_context(cadata=await asyncio.to_thread(pebble.root))
            _, writer = await asyncio.open_connection(
                "127.0.0.1", pebble.tls_port, ssl=context, server_hostname="one.example.com"
            )
            writer.close()
            await gateway.reload({**tables, "acme": {}, "listeners": tables["listeners"][:1]})  # type: ignore[index]
            assert await operations.acme() == []
        assert not [task for task in asyncio.all_tasks() if "acme" in task.get_name()]
