"""Inputs: a seed from the corpus, changed a little in ways that parsers have differed on."""

from __future__ import annotations

from pathlib import Path
from random import Random

CORPUS = Path(__file__).parent / "corpus"

PIECES = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b",", b";", b"=", b'"', b"\\", b"\x0b", b"\x0c",
    b"\x7f", b"\x85", b"\xa0", b"\xff", b"\r\n\r\n", b"\r\n ", b"\r\n\t", b"\n\n", b"\r\r\n", b"0", b"00",
    b"1", b"5", b"-1", b"+5", b"0x5", b"5, 5", b"10", b"ffffffffffffffff", b"7fffffffffffffff",
    b"18446744073709551616", b"99999999999999999999", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n",
    b"content-length:5\r\n", b"Content-Length : 5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding:chunked\r\n", b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding : chunked\r\n", b"chunked", b"Chunked",
    b"chunked,", b"Host: b\r\n", b"Host:\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n",
    b"Connection: upgrade\r\n", b"Connection: host, content-length, x-a\r\n", b"Upgrade: websocket\r\n",
    b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"TE: trailers\r\n", b"Trailer: X-T\r\n",
    b"Proxy-Connection: close\r\n", b"Max-Forwards: 0\r\n", b"X-Forwarded-For: 1.2.3.4\r\n", b"0\r\n\r\n",
    b"0\r\nX-T: 1\r\n\r\n", b"5\r\nhello\r\n", b";a=b", b";a", b';a="b c"', b"HTTP/1.1", b"HTTP/1.0",
    b"HTTP/2.0", b"HTTP/1.10", b"http/1.1", b"GET ", b"POST ", b"HEAD ", b"OPTIONS ", b"CONNECT ",
    b"TRACE ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"*", b"http://a", b"//", b"/../", b"/./", b"%2F",
    b"%2e%2e", b"%00", b"%", b"%zz", b"#", b"?", b"@", b"[::1]", b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n", b"304", b"204", b"101", b"199", b"999",
    b"GET / HTTP/1.1\r\nHost: smuggled\r\n\r\n", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
]  # fmt: skip


def load(kind: str) -> list[bytes]:
    """The seeds of a kind ("requests", "responses", "chunked", "proxy"), in a stable order."""
    return [path.read_bytes() for path in sorted((CORPUS / kind).iterdir())]


def mutate(random: Random, seeds: list[bytes], most: int = 4) -> bytes:
    """A seed, two of them, or one that was changed up to `most` times."""
    data = bytearray(random.choice(seeds))
    if random.random() < 0.3:
        data += random.choice(seeds)
    for _ in range(random.randint(0, most)):
        at = random.randint(0, len(data))
        match random.randrange(8):
            case 0:
                data[at:at] = random.choice(PIECES)
            case 1:
                _put_at_line(random, data, random.choice(PIECES))
            case 2:
                del data[at : at + random.randint(1, 4)]
            case 3 if at < len(data):
                data[at] = random.randrange(256)
            case 4 if at < len(data):
                data[at] ^= 1 << random.randrange(8)
            case 5:
                end = at + random.randint(1, 40)
                data[at:at] = data[at:end]
            case 6:
                other = random.choice(seeds)
                start = random.randint(0, len(other))
                data[at:] = other[start:]
            case _:
                end = at + random.randint(1, 3)
                data[at:end] = random.choice(PIECES)
    return bytes(data[:20000])


def _put_at_line(random: Random, data: bytearray, piece: bytes) -> None:
    """Behind one of the line ends: where a field line, a chunk or a message would begin."""
    at = random.choice([0, *(i + 1 for i, byte in enumerate(data) if byte == 10)])
    data[at:at] = piece


def split(random: Random, data: bytes) -> list[bytes]:
    """The segments by which the bytes come."""
    kind = random.random()
    if kind < 0.4 or len(data) < 2:
        return [data] if data else []
    if kind < 0.5 and len(data) < 400:
        return [data[i : i + 1] for i in range(len(data))]
    cuts = sorted(random.sample(range(1, len(data)), min(len(data) - 1, random.randint(1, 5))))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
