"""The scenarios: what is done to endpoints or gateway while the load runs, and what must come of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from bench.load import Load, write_requests
from bench.model import Limit, Request, Survival
from bench.process import load_cores
from bench.resilience.operate import await_true
from bench.resilience.stage import Row, Stage, stage, wait_until
from bench.resilience.tally import Answers, Fate, Window, first_lasting, milliseconds

SECOND = 1_000_000_000
RATE = 4000  # requests per second
LEAD = 2.0  # seconds of load before anything is done
TAIL = 1.0  # and after it


@dataclass(frozen=True)
class Scenario:
    """`run` takes a peer's name and the seconds of the part in which something happens."""

    name: str
    title: str
    run: Callable[[str, float], list[Row]]
    seconds: float
    quick: float

    def __str__(self) -> str:
        return self.name


def share(part: float, whole: float) -> float:
    """A ratio; 0 of nothing."""
    return part / whole if whole else 0.0


# --- kill


def kill(peer: str, seconds: float) -> list[Row]:
    """kill -9 of one endpoint each second, in turn; a new process on its port half a second later."""
    row = Row("kill", peer)
    with stage(peer) as on, on.load(RATE, LEAD + seconds + 30) as tally:
        start = time.monotonic_ns() + int(LEAD * SECOND)
        kills = max(1, int(seconds))
        for turn in range(kills):
            index = turn % len(on.fleet.ports)
            wait_until(start + turn * SECOND)
            on.fleet.kill(index)
            wait_until(start + turn * SECOND + SECOND // 2)
            on.fleet.start(index)
        time.sleep(TAIL)
        answers = tally.finish()
    row.cells["kills"] = str(kills)
    row.account(answers)
    latency(row, answers)
    failed = len(answers.failures)
    # A short run can't show what is asked of 200,000 requests, but it can fail to.
    enough = answers.sent >= 200_000 or kills < 60
    row.goal("0 failures of at least 200,000", f"{failed} of {answers.sent:,}", not failed and enough)
    return [row]


def latency(row: Row, answers: Answers) -> None:
    """The columns of latency over a whole run."""
    for title, mark in (("p50 ms", 0.5), ("p99 ms", 0.99), ("max ms", 1.0)):
        value = milliseconds(answers.records, mark)
        row.cells[title] = f"{value:.1f}"
        row.values[title] = value


# --- hang


def hang(peer: str, seconds: float) -> list[Row]:
    """SIGSTOP of one endpoint: it accepts and never answers. How long until the tail is as before?"""
    row = Row("hang", peer)
    lead = 4.0
    with stage(peer) as on, on.load(RATE, lead + seconds + 30) as tally:
        time.sleep(lead)
        stopped = time.monotonic_ns()
        on.fleet.pause(0)
        time.sleep(seconds)
        resumed = time.monotonic_ns()
        on.fleet.resume(0)
        time.sleep(TAIL)
        answers = tally.finish()
    before = milliseconds(answers.between(stopped - 3 * SECOND, stopped).records, 0.99)
    windows = answers.windows(stopped, resumed, 0.5)

    def good(window: Window) -> bool:
        return window.p99 <= 2 * before

    back = first_lasting(windows, good, 4)
    after = None if back is None else (back.start - stopped) / 1e9
    later = [w for w in windows if back is not None and w.start > back.start and not good(w)]
    row.account(answers)
    row.cells["p99 before, ms"] = f"{before:.1f}"
    row.cells["worst p99 of 500 ms"] = f"{max((w.p99 for w in windows), default=0.0):.0f}"
    row.cells["back within 2x after"] = "never" if after is None else f"{after:.1f} s"
    row.cells["windows above, later"] = str(len(later))
    row.values |= {
        "p99_before_ms": before,
        "back_after_s": after,
        "later": len(later),
        "p99_ms": [round(window.p99, 2) for window in windows],
    }
    row.goal(
        "p99 of 500 ms within 2x of before in < 5 s",
        row.cells["back within 2x after"],
        after is not None and after < 5,
    )
    return [row]


# --- rolling


def rolling(peer: str, seconds: float) -> list[Row]:
    """Every endpoint in turn: drained, ended when nothing runs there, a new process, in use again."""
    row = Row("rolling", peer)
    pause = seconds / 16
    with stage(peer) as on, on.load(RATE, LEAD + seconds + 200, post_every=2) as tally:
        time.sleep(LEAD)
        for index, port in enumerate(on.fleet.ports):
            on.operator.drain(port)
            await_idle(on, index)
            on.fleet.end(index)
            on.fleet.start(index)
            on.operator.restore(port)
            await_true(f"{peer} uses {port} again", lambda: on.fleet.stats(index)["requests"] > 0)  # noqa: B023
            time.sleep(pause)
        time.sleep(TAIL)
        answers = tally.finish()
        delivered = on.fleet.deliveries()
    row.account(answers)
    deliveries(row, answers, delivered)
    return [row]


def await_idle(on: Stage, index: int) -> None:
    """Until nothing runs at a draining endpoint: by the gateway, or else by the endpoint itself."""
    port = on.fleet.ports[index]

    def idle() -> bool:
        shown = on.operator.active(port)
        return (on.fleet.stats(index)["active"] if shown is None else shown) == 0

    await_true(f"{on.operator.name} has nothing under way at {port}", idle)


def deliveries(row: Row, answers: Answers, delivered: Counter[int]) -> None:
    """What became of every POST: the one answered must have been delivered once, no other more than once."""
    posts = {at: record for at, record in enumerate(answers.records) if record.post}
    double = sum(1 for count in delivered.values() if count > 1)
    lost = sum(1 for at, record in posts.items() if record.fate == Fate.OK and delivered[at] == 0)
    failed = len(answers.failures)
    row.cells |= {
        "POSTs": f"{len(posts):,}",
        "delivered twice": str(double),
        "never": str(lost),
    }
    row.values |= {"posts": len(posts), "double": double, "lost": lost}
    row.goal("0 failures, POST included", f"{failed} of {answers.sent:,}", not failed)
    row.goal(
        "each answered POST delivered exactly once", f"{double} twice, {lost} never", not double and not lost
    )


# --- half-errors


def half_errors(peer: str, seconds: float) -> list[Row]:
    """One endpoint answers every second request with 500, later none."""
    row = Row("half-errors", peer)
    watch = 15.0
    with stage(peer) as on, on.load(RATE, LEAD + seconds + watch + 10) as tally:
        time.sleep(LEAD)
        on.fleet.errors(0, 50)
        began = time.monotonic_ns()
        time.sleep(seconds)
        on.fleet.errors(0, 0)
        mended = time.monotonic_ns()
        fair = RATE / 10 / len(on.fleet.ports)
        time.sleep(watch)
        answers = tally.finish()
    windows = answers.windows(began, mended + int(watch * SECOND), 0.1)

    def used(window: Window) -> float:
        return window.endpoints[0] / fair

    def left_out(window: Window) -> bool:
        return used(window) <= 0.1

    out = first_lasting([w for w in windows if w.start < mended], left_out, 5)
    back = first_lasting([w for w in windows if w.start >= mended], lambda w: used(w) >= 0.5, 5)
    ejected = None if out is None else (out.start - began) / 1e9
    returned = None if back is None else (back.start - mended) / 1e9
    split = mended if out is None else out.start
    before, after = answers.between(began, split), answers.between(split, mended)
    row.cells |= {
        "requests": f"{answers.sent:,}",
        "ejected after": "never" if ejected is None else f"{ejected:.1f} s",
        "errors until then": f"{share(len(before.failures), before.sent):.2%}",
        "errors from then on": f"{share(len(after.failures), after.sent):.2%}" if after.sent else "-",
        "back after mending": "never" if returned is None else f"{returned:.1f} s",
    }
    row.values |= {
        "requests": answers.sent,
        "ejected_s": ejected,
        "returned_s": returned,
        "failed": dict(answers.failed()),
        "errors_before": share(len(before.failures), before.sent),
        "errors_after": share(len(after.failures), after.sent),
    }
    row.goal("ejected", row.cells["ejected after"], ejected is not None)
    row.goal("back once it is mended", row.cells["back after mending"], returned is not None)
    return [row]


# --- all-down


def all_down(peer: str, seconds: float) -> list[Row]:
    """All endpoints killed at once: what is answered, and how soon."""
    row = Row("all-down", peer)
    survival = Survival(retry=True, outlier=True, breaker=True, checks=True, panic=0)
    with stage(peer, survival) as on, on.load(1000, LEAD + seconds + 10) as tally:
        time.sleep(LEAD)
        began = time.monotonic_ns()
        for index in range(len(on.fleet.ports)):
            on.fleet.kill(index)
        killed = time.monotonic_ns()
        time.sleep(seconds)
        ended = time.monotonic_ns()
        answers = tally.finish()
    healthy = answers.between(0, began - SECOND // 10)
    first, then = answers.between(killed, killed + SECOND), answers.between(killed + SECOND, ended)
    for title, part in (("first second", first), ("then", then)):
        failed = part.failed()
        times = [milliseconds(part.records, mark) for mark in (0.5, 0.99, 1.0)]
        row.cells[f"{title}: answers"] = ", ".join(f"{n:,} {kind}" for kind, n in failed.most_common(3))
        row.cells[f"{title}: p50 / p99 / max ms"] = " / ".join(f"{value:.1f}" for value in times)
        row.values[title] = {
            "answers": dict(failed),
            "p50_ms": times[0],
            "p99_ms": times[1],
            "max_ms": times[2],
        }
    reasoned = all(r.fate == Fate.STATUS and r.status == 503 and r.reason for r in then.records)
    row.goal("every answer 503 with its reason", row.cells["then: answers"], reasoned and bool(then.records))
    worst = milliseconds(then.records, 1.0)
    row.goal("within 50 ms", f"{worst:.1f} ms at the most", worst <= 50)
    if healthy.failures:
        row.problems.append(f"failures before anything was done: {dict(healthy.failed())}")
    return [row]


# --- reload


def reload(peer: str, seconds: float) -> list[Row]:
    """The configuration reloaded and the endpoints exchanged, again and again."""
    row = Row("reload", peer)
    turns = max(2, int(seconds * 2))
    with stage(peer) as on, on.load(RATE, LEAD + seconds + 20 * turns, post_every=4) as tally:
        time.sleep(LEAD)
        ports = on.fleet.ports
        reloads = 0
        for turn in range(turns):
            # Half of the endpoints in turn, then all again.
            half = ports[: len(ports) // 2] if turn % 4 == 0 else ports[len(ports) // 2 :]
            on.operator.use(half if turn % 2 == 0 else ports)
            time.sleep(0.25)
            if on.operator.can_reload:
                on.operator.reload()
                reloads += 1
            time.sleep(0.25)
        time.sleep(TAIL)
        answers = tally.finish()
        delivered = on.fleet.deliveries()
    row.cells |= {"reloads": str(reloads), "endpoint changes": str(turns)}
    row.account(answers)
    deliveries(row, answers, delivered)
    return [row]


# --- overload

SLOTS = 16
PATIENCE = 0.25  # seconds that a client waits
LIMITS: dict[str, tuple[Limit, Limit]] = {
    "fastgate": (None, "adaptive"),
    "nginx": (None, SLOTS),
    "haproxy": (None, SLOTS),
    "envoy": (None, "adaptive"),
}


def overload(peer: str, seconds: float) -> list[Row]:
    """Three times what the endpoint can do: 16 requests at once, each 10 ms. The client waits 250 ms."""
    return [overloaded(peer, limit, seconds) for limit in LIMITS[peer]]


def overloaded(peer: str, limit: Limit, seconds: float) -> Row:
    """One gateway with one limit of concurrency."""
    row = Row("overload", peer)
    survival = Survival(limit=limit)
    with stage(peer, survival, endpoints=1, delay_us=10_000, slots=SLOTS) as on:
        request = Request(tail="/id/0").encode(0)
        file = write_requests(on.folder / "requests", [request])
        peak = Load(on.fleet.ports[0], load_cores(), file, file).closed(2 * SLOTS, 2).rate
        rate = int(3 * peak)
        with on.load(rate, seconds, connections=2048, deadline=PATIENCE) as tally:
            answers = tally.finish(early=False)
    # The first second is what it takes to find a limit.
    start = answers.records[0].due + SECOND
    steady = answers.between(start, answers.records[-1].due + 1)
    length = (steady.records[-1].due - start) / 1e9
    good = [record for record in steady.records if record.fate == Fate.OK]
    refused = [record for record in steady.records if record.fate == Fate.STATUS]
    goodput = len(good) / length
    p99 = milliseconds(good, 0.99)
    row.cells |= {
        "limit": str(limit or "none"),
        "peak/s": f"{peak:,.0f}",
        "offered/s": f"{rate:,}",
        "in time/s": f"{goodput:,.0f}",
        "of the peak": f"{goodput / peak:.0%}",
        "p99 of these, ms": f"{p99:.0f}",
        "refused": f"{share(len(refused), steady.sent):.0%}",
        "given up": f"{share(steady.sent - len(good) - len(refused), steady.sent):.0%}",
        "refused in, p99 ms": f"{milliseconds(refused, 0.99):.0f}",
    }
    row.values |= {
        "limit": limit,
        "peak": peak,
        "goodput": goodput,
        "goodput_of_peak": goodput / peak,
        "p99_ms": p99,
        "requests": steady.sent,
        "failed": dict(steady.failed()),
    }
    if limit is not None:
        row.goal("goodput >= 90 % of the peak", row.cells["of the peak"], goodput >= 0.9 * peak)
    return row


SCENARIOS = (
    Scenario("kill", "kill -9 of one of 8 endpoints each second, restarted half a second later", kill, 60, 5),
    Scenario("hang", "one of 8 endpoints stops answering (SIGSTOP)", hang, 12, 6),
    Scenario("rolling", "rolling deployment of all 8 endpoints, half of the requests POST", rolling, 16, 2),
    Scenario("half-errors", "one of 8 endpoints answers every second request with 500", half_errors, 12, 4),
    Scenario("all-down", "all 8 endpoints killed", all_down, 6, 3),
    Scenario("reload", "reloads and changes of the endpoints, a quarter of the requests POST", reload, 10, 2),
    Scenario("overload", "three times what the endpoint can do, clients wait 250 ms", overload, 10, 4),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
