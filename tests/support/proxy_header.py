"""PROXY protocol headers, good ones by default (the HAProxy specification, versions 1 and 2)."""

from __future__ import annotations

import ipaddress
import socket
import struct

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v1(
    source: str = "203.0.113.7", port: int = 4711, target: str = "198.51.100.1", target_port: int = 443
) -> bytes:
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {target} {port} {target_port}\r\n".encode()


def v2(
    source: str = "203.0.113.7",
    port: int = 4711,
    target: str = "198.51.100.1",
    target_port: int = 443,
    *,
    command: int = 1,
    version: int = 2,
    family: int | None = None,
    tail: bytes = b"",
    length: int | None = None,
) -> bytes:
    """`tail`: TLV bytes; `length`: what the header claims, when it shall be wrong; command 0 is LOCAL."""
    addresses = b"".join(ipaddress.ip_address(address).packed for address in (source, target))
    block = addresses + struct.pack("!HH", port, target_port) + tail
    if family is None:
        family = 0x21 if ":" in source else 0x11
    size = len(block) if length is None else length
    return SIGNATURE + struct.pack("!BBH", version << 4 | command, family, size) + block


def v2_local() -> bytes:
    return SIGNATURE + struct.pack("!BBH", 0x20, 0, 0)


def v2_unix() -> bytes:
    """AF_UNIX, stream: two paths of 108 bytes."""
    assert socket.AF_UNIX
    return SIGNATURE + struct.pack("!BBH", 0x21, 0x31, 216) + b"\x00" * 216
