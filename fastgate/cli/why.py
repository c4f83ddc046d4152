"""Tell why the running gateway answered a request as it did, through its admin API.

With a request's id (X-Request-ID; the `request_id` of answers and of the access log): its route and why,
what its plugins said, each attempt with its outcome, the parts of an aggregation side by side, and when.
Failures are kept for a while, other requests if they are sampled, kept by chance (`why.keep`) or asked for
it. Without an id: the latest failures.

With --sign: prints the header by which a request asks for its own trace; it needs the `why.key` of the
configuration, and no running gateway.
Exit code 0: told; 1: nothing is kept of it, or the gateway can't be asked; 2: usage.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from fastgate.cli.admin_client import add_admin_options, call, table
from fastgate.cli.common import load_or_tell

WIDTH: Final = 50  # of the waterfall

if TYPE_CHECKING:
    from fastgate.telemetry.trail import ExchangeTrace, Step


def arguments(parser: argparse.ArgumentParser) -> None:
    add_admin_options(parser)
    parser.add_argument("request_id", metavar="REQUEST-ID", nargs="?", help="of the request")
    parser.add_argument("--json", action="store_true", help="print what the admin API answers")
    parser.add_argument(
        "--sign",
        nargs=2,
        metavar=("METHOD", "URL"),
        help='print the header for such requests, as in GET "https://host/path"; the query does not count',
    )
    parser.add_argument(
        "--expires",
        metavar="SECONDS",
        type=int,
        default=60,
        help="of --sign: from now on (default: %(default)s; at most `why.key_lifetime`)",
    )


def main(args: argparse.Namespace) -> int:
    if args.sign is not None:
        if args.request_id is not None:
            print("fastgate why: --sign is for requests to come, and takes no id", file=sys.stderr)
            return 2
        return _sign(args, *args.sign)
    found = call(args, "GET", *(["failures"] if args.request_id is None else ["requests", args.request_id]))
    if args.json:
        import json

        print(json.dumps(found, indent=2))
        return 0
    import msgspec

    from fastgate.telemetry.trail import ExchangeTrace

    if args.request_id is not None:
        print(_shown("\n".join(describe(msgspec.convert(found, ExchangeTrace)))))
        return 0
    failures = msgspec.convert(found["failures"], list[ExchangeTrace])
    if not failures:
        print("no failures are kept")
        return 0
    rows = [["TIME", "STATUS", "REASON", "METHOD", "HOST", "PATH", "ROUTE", "REQUEST-ID"]]
    rows += [
        [
            trace.time, str(trace.status), trace.reason or "-", trace.method or "-", trace.host or "-",
            trace.path or "-", trace.route or "-", trace.request_id,
        ]
        for trace in failures
    ]  # fmt: skip
    print(table(rows))
    return 0


# -- what happened


def describe(trace: ExchangeTrace) -> list[str]:
    """In lines, each step with the milliseconds at which it began."""
    target = (trace.path or "?") + ("" if trace.query is None else f"?{trace.query}")
    scheme = "https" if trace.secure else "http"
    lines = [
        f"{trace.method or '?'} {scheme}://{trace.host or '?'}{target}",
        f"request {trace.request_id}, {trace.time}, from {trace.client or 'a Unix socket'},"
        f' to listener "{trace.listener}"',
    ]
    if trace.trace_id:
        lines.append(f"trace {trace.trace_id}, span {trace.span_id}")
    lines.append(_outcome(trace))
    lines.append("no route" if trace.route is None else f'route "{trace.route}"')
    lines += [f"  {why}" for why in trace.route_why]
    lines += _waterfall(trace)
    lines.append("steps, in milliseconds")
    number = 0
    for step in trace.steps:
        number += step.step == "attempt"
        lines.append(f"  {_ms(step.at):>10}  {_step(step, number)}")
    if trace.steps_lost:
        lines.append(f"  {'':>10}  ({trace.steps_lost} more that found no room)")
    lines.append(
        f"  {_ms(trace.total_ns):>10}  ended, {trace.bytes_in} bytes of body in, {trace.bytes_out} out"
    )
    return lines


def _waterfall(trace: ExchangeTrace) -> list[str]:
    """The parts of an aggregation, side by side in time."""
    parts = [step for step in trace.steps if step.step == "part"]
    if not parts:
        return []
    scale = WIDTH / max(1, *(step.at + (step.took or 0) for step in parts))
    widest = max(len(step.name) for step in parts)
    lines = [f"parts, {WIDTH} characters are {_ms(round(WIDTH / scale))} ms"]
    for step in parts:
        start, length = round(step.at * scale), max(1, round((step.took or 0) * scale))
        bar = " " * min(start, WIDTH - 1) + ("x" if step.reason else "=") * length
        lines.append(f"  {step.name:{widest}}  |{bar[:WIDTH]:{WIDTH}}|")
    return lines


def _outcome(trace: ExchangeTrace) -> str:
    said = f"status {trace.status}" if trace.status else "no answer"
    if trace.reason:
        said += f", reason {trace.reason}"
    return said + (f" ({trace.detail})" if trace.detail else "")


def _step(step: Step, number: int) -> str:
    if step.step == "attempt":
        return _attempt(step, number)
    words = [step.step]
    if step.name:
        words.append(f'"{step.name}"')
    if step.upstream:
        words.append(f"from {step.endpoint or 'nobody'} of {step.upstream}")
    if step.phase:
        words.append(f"({step.phase})")
    if step.verdict:
        words.append(step.verdict)
    if step.status is not None:
        words.append(str(step.status))
    if step.reason:
        words.append(step.reason)
    if step.detail:
        words.append(f"({step.detail})")
    if step.took is not None:
        words.append(f"in {_ms(step.took)}")
    if step.attempts is not None:
        words.append(f"at {step.attempts} attempts")
    return " ".join(words)


def _attempt(step: Step, number: int) -> str:
    parts = [f"attempt {number}{', a hedge,' if step.hedge else ''} on {step.endpoint} of {step.upstream}"]
    if step.sent is None:
        parts.append("not sent")
    elif step.connect is not None:
        parts.append(f"connected in {_ms(step.connect)}")
    elif step.sent:
        parts.append(f"waited {_ms(step.sent)} for a connection")
    if step.head is not None:
        parts.append(f"answered {step.status or ''} after {_ms(step.head)}".replace("  ", " "))
    if step.reason:
        parts.append(step.reason)
    if step.detail:
        parts.append(step.detail)
    parts.append(f"over after {_ms(step.took or 0)}")
    return ", ".join(parts)


def _ms(ns: int) -> str:
    return f"{ns / 1e6:.3f}"


def _shown(text: str) -> str:
    from fastgate.config.problems import shown

    return "\n".join(shown(line) for line in text.splitlines())


# -- asking for a trace


def _sign(args: argparse.Namespace, method: str, url: str) -> int:
    loaded = load_or_tell(args.config)
    if loaded is None:
        return 1
    from fastgate._core import TargetError, parse_target
    from fastgate.telemetry.asking import HEADER, sign

    why: Any = loaded.config.why
    if why.key is None:
        print(f"fastgate why: {args.config} has no `why.key`", file=sys.stderr)
        return 1
    if not 0 < args.expires <= why.key_lifetime // 10**9:
        most = why.key_lifetime // 10**9
        print(f"fastgate why: --expires is 1 to {most} (`why.key_lifetime`)", file=sys.stderr)
        return 2
    try:
        target = parse_target(url.encode(), None, method.encode())
    except TargetError as error:
        print(f"fastgate why: {error} ({error.reason})", file=sys.stderr)
        return 2
    if not target.host:
        print('fastgate why: a URL with its host, as in "https://host/path"', file=sys.stderr)
        return 2
    key = why.key if isinstance(why.key, str) else why.key.reveal()
    expiry = int(time.time()) + args.expires
    value = sign(key, expiry, method, target.host.decode(), target.path.decode())
    print(f"{HEADER}: {value}")
    return 0
