"""Rounds of inputs, each named by a number from which it can be made again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from random import Random

from fastgate import _core

from .chaos import run_chaos
from .crowd import run_crowd
from .detours import run_detours
from .grammar import PIECES, load, mutate, split
from .reader import Bad, Message, Reader, Short
from .scenario import Finding, Rig, run_client, run_upstream

SEEDS = {kind: load(kind) for kind in ("requests", "responses", "chunked", "proxy")}


def client_bytes(rig: Rig, random: Random) -> str:
    return run_client(rig, random, mutate(random, SEEDS["requests"]))


def upstream_bytes(rig: Rig, random: Random) -> str:
    return run_upstream(rig, random, mutate(random, SEEDS["responses"]))


def proxy_bytes(rig: Rig, random: Random) -> str:
    return run_client(rig, random, mutate(random, SEEDS["proxy"]), listener=1)


def chunked_body(_rig: Rig, random: Random) -> str:
    """The decoder alone, against the strict reader."""
    data = mutate(random, SEEDS["chunked"])
    word, body, trailers, used = _core.sample_chunked(split(random, data))
    reader = Reader(data)
    message = Message()
    try:
        reader.chunks(message)
        wanted = "end"
    except Short:
        wanted = "more"
    except Bad:
        wanted = "bad"
    if word == "end" and (wanted, reader.at, message.body) != ("end", used, body):
        raise Finding(f"decoded to {body!r} with {trailers!r}, read as {wanted} {message}")
    if wanted == "end" and word != "end":
        raise Finding(f"refused ({word}) what is well-formed")
    if word == "more" and wanted == "bad" and data.count(b"\n", used - 1) > 1:
        raise Finding("went on behind what is bad")
    return word


def target(_rig: Rig, random: Random) -> str:
    """A target that was accepted is its own normal form."""
    given = random.choice((b"/", b"/a/b", b"/a/../b?c", b"http://a/b", b"/a%2fb", b"*", b"/%41/.%2e/c;d"))
    data = bytearray(given)
    for _ in range(random.randint(0, 4)):
        at = random.randint(0, len(data))
        data[at:at] = random.choice(PIECES) if random.random() < 0.5 else bytes([random.randrange(256)])
    host = random.choice((b"a", b"A.b:80", b"[::1]", None, b"a..b", bytes(data[:10])))
    method = random.choice((b"GET", b"OPTIONS"))
    try:
        read = _core.parse_target(bytes(data), host, method)
    except _core.TargetError:
        return "refused"
    again = read.path if read.query is None else read.path + b"?" + read.query
    if read.form == "asterisk":
        return "accepted"
    if _core.parse_target(again, read.authority or None, method)[4:7] != read[4:7]:
        raise Finding(f"{bytes(data)!r} becomes {again!r}, which becomes something else")
    if not read.path.startswith(b"/") or any(byte <= 32 or byte >= 127 for byte in again):
        raise Finding(f"{bytes(data)!r} becomes {again!r}")
    return "accepted"


KINDS: dict[str, Callable[[Rig, Random], str]] = {
    "client": client_bytes,
    "upstream": upstream_bytes,
    "proxy": proxy_bytes,
    "chunked": chunked_body,
    "target": target,
    "crowd": run_crowd,
    "detours": run_detours,
    "chaos": run_chaos,
}
# How often each comes: those that hold a whole connection are the point.
WEIGHTS = {
    "client": 5,
    "upstream": 3,
    "proxy": 1,
    "chunked": 2,
    "target": 1,
    "crowd": 1,
    "detours": 1,
    "chaos": 1,
}


def one(rig: Rig, seed: int) -> tuple[str, str]:
    """The input of this number: its kind, and what became of it. Raises Finding."""
    random = Random(seed)
    kind = random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    return kind, KINDS[kind](rig, random)


def run(
    first: int, inputs: int, *, keep_going: bool = False, progress: float = 0
) -> tuple[Counter[str], list[str]]:
    """Runs inputs `first`, `first` + 1, ... Returns what became of them and what was found."""
    rig = Rig()
    counts: Counter[str] = Counter()
    findings: list[str] = []
    told = time.monotonic()
    for seed in range(first, first + inputs):
        try:
            counts[" ".join(one(rig, seed))] += 1
        except Exception as error:
            findings.append(f"input {seed}: {type(error).__name__}: {error}")
            if not keep_going:
                raise Finding(findings[-1]) from error
            rig = Rig()
            if len(findings) >= 50:
                break
        if progress and time.monotonic() - told > progress:
            told = time.monotonic()
            print(f"{seed - first + 1} inputs, {len(findings)} findings, {dict(counts)}", flush=True)
    return counts, findings
