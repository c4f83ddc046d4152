"""Decide the requests of a recording by a candidate configuration and by the one in force, and show which
would go another way: to another route or upstream, with another target, another redirect, or an answer of the
gateway's own.

LOG is an access log of this gateway (JSON lines, also .gz, "-" for stdin), or a HAR file (.har). Nothing is
sent anywhere. What plugins in Python and rate limits would do is not decided, nor what endpoints
answer; of header fields a log knows those that `access_log.headers` names.
Exit code 0: all go the same way; 2: some do not; 1: it could not be told.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from fastgate.cli.admin_client import add_admin_options
from fastgate.cli.common import Failed, load_or_tell

if TYPE_CHECKING:
    from fastgate.config import Config
    from fastgate.routing.decide import Asked, Decision
    from fastgate.routing.recorded import Recording

KINDS: Final = 1000  # different differences that are counted each by itself
SHOWN: Final = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    add_admin_options(parser)
    parser.add_argument("log", metavar="LOG", help="the recording")
    parser.add_argument(
        "--against",
        metavar="FILE",
        action="append",
        help="the other configuration (default: the one in force in the running gateway)",
    )
    parser.add_argument("--listener", metavar="NAME", help="for requests of which the recording tells none")
    parser.add_argument("--quiet", action="store_true", help="print counts alone")


def main(args: argparse.Namespace) -> int:
    new = load_or_tell(args.config, look=True)
    if new is None:
        return 1
    old = _other(args)
    if old is None:
        return 1
    from fastgate.routing.recorded import Recording

    try:
        recording = Recording(args.log)
        comparison = _Comparison(old, new.config, args.listener)
        return comparison.run(recording, quiet=args.quiet)
    except (OSError, EOFError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        print(f"fastgate replay: {args.log}: {reason}", file=sys.stderr)
        return 1


def _other(args: argparse.Namespace) -> Config | None:
    """Raises Failed."""
    if args.against is not None:
        loaded = load_or_tell(args.against, look=True)
        return None if loaded is None else loaded.config
    from fastgate.cli.diff import sources_of
    from fastgate.config import ConfigError, load_sources
    from fastgate.config.secrets import Supposed

    try:
        return load_sources(sources_of(args, "current"), environ=Supposed()).config
    except ConfigError as error:
        raise Failed(f"the configuration in force can't be read here:\n{error}") from None


class _Comparison:
    def __init__(self, old: Config, new: Config, listener: str | None) -> None:
        from fastgate.routing.decide import Decider

        self._deciders = Decider(old), Decider(new)
        self._default = listener
        # What a log repeats is decided once.
        self._decide = functools.lru_cache(maxsize=1 << 16)(self._decide_both)
        self._kinds: Counter[str] = Counter()

    def run(self, recording: Recording, *, quiet: bool) -> int:
        from fastgate.config.problems import shown

        progress = _Progress(recording)
        seen = differing = 0
        for each in recording:
            seen += 1
            old, new = self._decide(each.listener, each.asked)
            if old != new:
                differing += 1
                kind = _kind(old, new)
                self._kinds[kind if len(self._kinds) < KINDS else "others"] += 1
                if not quiet:
                    asked = each.asked
                    print(
                        shown(f"{each.at}: {asked.method} {asked.host or ''}{asked.target}: {old} => {new}")
                    )
            progress.tell(seen, differing)
        progress.end()
        self._summary(recording, seen, differing)
        return 2 if differing else 0

    def _decide_both(self, listener: str, asked: Asked) -> tuple[str, str] | tuple[Decision, Decision]:
        old, new = (self._one(which, listener, asked) for which in (0, 1))
        return old, new  # type: ignore[return-value]

    def _one(self, which: int, listener: str, asked: Asked) -> Decision | str:
        decider = self._deciders[which]
        name = listener or self._default or decider.listeners[0]
        if name not in decider.listeners:
            return f"no listener {name}"
        return decider.decide(name, asked)

    def _summary(self, recording: Recording, seen: int, differing: int) -> None:
        from fastgate.config.problems import shown

        print(f"{seen} requests, {differing} go another way")
        for kind, count in self._kinds.most_common(SHOWN):
            print(shown(f"{count:>8}  {kind}"))
        notes = {
            "lines can't be read": recording.malformed,
            "lines hold no request": recording.empty,
            "requests hold a value that was hidden": recording.redacted,
        }
        for what, count in notes.items():
            if count:
                print(f"{count} {what}", file=sys.stderr)
        wanted = set().union(*(decider.conditions() for decider in self._deciders)) - recording.fields
        if wanted:
            names = ", ".join(sorted(wanted))
            print(
                f"routes look at {names}, of which the recording tells nothing: they count as absent",
                file=sys.stderr,
            )


def _kind(old: Decision | str, new: Decision | str) -> str:
    """What differs, without the request's own values."""

    def told(one: Decision | str) -> str:
        if isinstance(one, str):
            return one
        if one.status is None:
            return f"{one.route} -> {one.upstream}"
        return f"{one.route} -> {one.status} {one.reason}" if one.route else f"{one.status} {one.reason}"

    before, after = told(old), told(new)
    if before != after:
        return f"{before} => {after}"
    return f"{before}: another {'location' if not isinstance(old, str) and old.location else 'target'}"


class _Progress:
    """A line on stderr, where that is a terminal."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._shown = sys.stderr.isatty()
        self._next = time.monotonic() + 1

    def tell(self, seen: int, differing: int) -> None:
        if not self._shown or seen & 1023 or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 1
        size = self._recording.size
        part = f"{100 * self._recording.done / size:.0f} %, " if size else ""
        sys.stderr.write(f"\r{part}{seen} requests, {differing} go another way")
        sys.stderr.flush()

    def end(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
