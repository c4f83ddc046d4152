"""`python -m bench`: takes the samples, shows them coming in, writes the report."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.machine import describe
from bench.model import Sample
from bench.peers import PEERS
from bench.plan import Settings, Step, plan
from bench.plot import to_svg
from bench.provision import compile_native, missing_peers, missing_tools, setup
from bench.report import MAIN_FORMAT, Report, to_json, to_markdown, to_terminal
from bench.runner import run
from bench.scenarios import BY_NAME, QUICK, SCENARIOS
from bench.stats import Results

QUICK_PEERS = ("fastgate", "nginx", "haproxy", "envoy", "relay")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    own = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures fastgate beside other gateways on the same work. Without options: everything, "
        "which takes about 50 minutes with all peers; the time left is shown.",
        epilog="scenarios: " + ", ".join(BY_NAME) + ". peers: " + ", ".join(PEERS) + ".",
    )
    own.add_argument(
        "--setup", action="store_true", help="install what is missing (apt-get, pip), compile, and end"
    )
    own.add_argument(
        "--quick", action="store_true", help="one short round of three scenarios: does it all work? (< 60 s)"
    )
    own.add_argument(
        "--scenario", nargs="+", metavar="NAME", choices=BY_NAME, help="these scenarios (default: all)"
    )
    own.add_argument(
        "--peers", nargs="+", metavar="NAME", choices=PEERS, help="these peers (default: all that are there)"
    )
    own.add_argument("--rounds", type=positive, help="samples of each peer in each scenario (default 5)")
    own.add_argument(
        "--seconds", type=positive, help="measured seconds of a sample (default 4; CPU wants at least 3)"
    )
    own.add_argument("--seed", type=int, default=1, help="of the order of peers within rounds (default 1)")
    own.add_argument(
        "--subject", default="fastgate", choices=PEERS, metavar="NAME", help="whose ratios are shown"
    )
    own.add_argument(
        "--out", type=Path, default=Path("bench/results"), help="folder of the report (bench/results)"
    )
    return own


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def line_of(step: Step, sample: Sample, position: str, left: float) -> str:
    """A line of progress."""
    metric = step.scenario.metric
    value = sample.values.get(metric.key)
    if not sample.valid:
        shown = "INVALID: " + "; ".join(sample.problems)
    else:
        shown = "-" if value is None else f"{value:{MAIN_FORMAT[step.scenario.kind]}} {metric.unit}".strip()
    if sample.remarks:
        shown += f" ({'; '.join(sample.remarks)})"
    clock = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
    what = f"round {step.round} {step.scenario.name} {step.peer.name}"
    return f"[{position}] {what}: {shown}   (about {clock} left)"


def prepare(wanted: Sequence[str] | None, default: Sequence[str]) -> tuple[list[str], dict[str, str]] | None:
    """The peers that can run and what the others miss; None, with the reason printed, where nothing can."""
    if tools := missing_tools():
        print(
            "bench: missing: " + "; ".join(tools) + "\nbench: run `python -m bench --setup`", file=sys.stderr
        )
        return None
    compile_native()
    names = list(wanted or default)
    missing = missing_peers(PEERS[name] for name in names)
    for name, what in missing.items():
        print(f"bench: without {name}: {what}", file=sys.stderr)
    if wanted and missing:
        print("bench: a peer that was asked for is missing", file=sys.stderr)
        return None
    return [name for name in names if name not in missing], missing


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 all samples valid, 1 some invalid or something missing, 2 usage."""
    options = parser().parse_args(arguments)
    if options.setup:
        return setup()
    prepared = prepare(options.peers, QUICK_PEERS if options.quick else tuple(PEERS))
    if prepared is None:
        return 1
    names, missing = prepared
    settings = Settings(rounds=1, seconds=1, warm=0) if options.quick else Settings()
    changes = {key: value for key in ("rounds", "seconds") if (value := getattr(options, key)) is not None}
    settings = dataclasses.replace(settings, **changes)
    wanted = options.scenario or (QUICK if options.quick else BY_NAME)
    steps = plan(
        [s for s in SCENARIOS if s.name in wanted], [PEERS[n] for n in names], settings.rounds, options.seed
    )
    machine = describe(PEERS[name] for name in names)
    print(
        f"bench: {len(steps)} samples, about {sum(settings.cost(s.scenario) for s in steps) / 60:.0f} min",
        flush=True,
    )
    # Ended from outside, the suite still ends its peers: the interrupt unwinds through their stops.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    samples: list[Sample] = []
    began = time.monotonic()
    try:
        for step, sample, left in run(steps, settings):
            samples.append(sample)
            print(line_of(step, sample, f"{len(samples)}/{len(steps)}", left), flush=True)
    except KeyboardInterrupt:
        print("bench: interrupted; reporting what there is", file=sys.stderr)
    report = Report(Results(samples), machine, dataclasses.asdict(settings), missing, options.subject)
    print(f"\n{to_terminal(report)}\n")
    options.out.mkdir(parents=True, exist_ok=True)
    for name, text in (("json", to_json(report)), ("md", to_markdown(report)), ("svg", to_svg(report))):
        (options.out / f"results.{name}").write_text(text)
    print(f"bench: {time.monotonic() - began:.0f} s; wrote results.json, .md and .svg to {options.out}")
    return 1 if report.results.failures() or len(samples) < len(steps) else 0


if __name__ == "__main__":
    sys.exit(main())
