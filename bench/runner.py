"""One sample: a peer started fresh, warmed, driven, measured and ended."""

from __future__ import annotations

import http.client
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.load import Load, LoadFailed, upstream_counts, write_requests
from bench.model import Kind, Sample
from bench.peers.base import NATIVE, Peer, Place
from bench.plan import SETTLE, Progress, Settings, Step
from bench.process import (
    START_PATIENCE,
    TICK,
    Cpu,
    PeerFailed,
    Session,
    core_busy_ticks,
    load_cores,
    peer_core,
)
from bench.scenarios import SLOWEST_MS

GIVE_UP_MS = 1000.0  # overload: a client's patience
WAITS_RATE = 25.0  # requests per second
FOREIGN_LIMIT = 0.05  # of the peer's core; beyond it the sample carries a remark


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def ask(port: int, request: bytes, tls: bool = False) -> int:
    """The status of one request on its own connection. OSError or HTTPException where there is no answer."""
    with ExitStack() as ends:
        connection = ends.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = ends.enter_context(
                context.wrap_socket(connection, server_hostname="api.example.com")
            )
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status


def start_upstream(folder: Path, endpoints: int = 1) -> tuple[Session, tuple[int, ...]]:
    """The upstream on the load's cores, and its ports."""
    session = Session([str(NATIVE / "upstream"), str(endpoints)], load_cores(), folder / "upstream.out")
    deadline = time.monotonic() + START_PATIENCE
    while time.monotonic() < deadline:
        session.check()
        text = session.log.read_text()
        if text.endswith("\n"):
            return session, tuple(map(int, text.split()))
        time.sleep(0.01)
    session.stop()
    raise PeerFailed("the upstream did not start")


def start_peer(peer: Peer, place: Place, first: bytes, expected: int = 200) -> Session:
    """The peer on its core, answering `first` with `expected`. PeerFailed otherwise."""
    session = Session(peer.command(place), [peer_core()], place.folder / "peer.out", peer.environment(place))
    deadline = time.monotonic() + START_PATIENCE
    status: int | str = "nothing"
    try:
        while time.monotonic() < deadline:
            session.check()
            try:
                status = ask(place.port, first, place.shape.tls)
            except (OSError, http.client.HTTPException) as error:
                status = type(error).__name__
            if status == expected:
                return session
            time.sleep(0.02)
        raise PeerFailed(f"{peer.name} answered its first request with {status}: {session.tail()}")
    except BaseException:
        session.stop()
        raise


class Meter:
    """CPU of the peer and of its surroundings over a stretch of time."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.start = time.monotonic()
        self.cores = core_busy_ticks([peer_core()]), core_busy_ticks(load_cores())
        self.cpu: Cpu = session.cpu()

    def read(self) -> dict[str, float]:
        """Seconds of CPU (user_s, system_s, cpu_s) and shares of a core: busy (peer), foreign, load_busy."""
        user, system = self.session.cpu().since(self.cpu)
        own, load = core_busy_ticks([peer_core()]), core_busy_ticks(load_cores())
        span = time.monotonic() - self.start
        others = (own - self.cores[0]) / TICK - user - system
        return {
            "user_s": user,
            "system_s": system,
            "cpu_s": user + system,
            "busy": (user + system) / span,
            "foreign": max(0.0, others / span),
            "load_busy": (load - self.cores[1]) / TICK / span / len(load_cores()),
        }


def measure(step: Step, settings: Settings) -> Sample:
    """Takes one sample; what goes wrong with the peer or the load is in its problems, not raised."""
    sample = Sample(step.scenario.name, step.peer.name, step.round)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        upstream = peer = None
        try:
            upstream, ports = start_upstream(folder, step.scenario.shape.endpoints)
            place = Place(folder, free_port(), ports, step.scenario.shape, free_port())
            requests = step.scenario.requests()
            request = folder / "request"
            request.write_bytes(requests[-1])
            load = Load(
                place.port,
                load_cores(),
                request,
                write_requests(folder / "requests", requests),
                tls=place.shape.tls,
            )
            peer = start_peer(step.peer, place, step.scenario.request.encode(0))
            peak = DRIVERS[step.scenario.kind](step, settings, load, peer, sample)
            connections, answered = upstream_counts(ports[0])
            sample.values["upstream_connections"] = connections
            if answered > 1000 and connections > max(answered / 10, 4 * step.scenario.connections):
                sample.remarks.append(
                    f"{connections} upstream connections for {answered} requests: no keep-alive"
                )
            wanted = peak * max(1, len(step.scenario.shape.parts))
            if peak and answered < wanted:
                sample.problems.append(f"the upstream saw {answered} requests of {wanted:.0f}")
            peer.check()
        except (PeerFailed, LoadFailed, OSError) as error:
            sample.problems.append(str(error))
        finally:
            for session in (peer, upstream):
                if session is not None:
                    session.stop()
    remark_noise(sample)
    return sample


def remark_noise(sample: Sample) -> None:
    """Says what in the surroundings may have bent the numbers."""
    if (foreign := sample.values.get("foreign", 0.0)) > FOREIGN_LIMIT:
        sample.remarks.append(f"others used {foreign:.0%} of the peer's core")


# Drivers: each fills the sample's values and returns how many requests the upstream must have seen at least.


def drive_closed(step: Step, settings: Settings, load: Load, peer: Session, sample: Sample) -> float:
    """Closed loop: CPU per request, requests/s, latency under saturation."""
    if settings.warm:
        load.closed(step.scenario.connections, settings.warm)
    meter = Meter(peer)
    result = load.closed(step.scenario.connections, settings.seconds)
    used = meter.read()
    sample.problems += result.problems()
    if result.requests:
        sample.values = {
            "cpu_us": used["cpu_s"] / result.requests * 1e6,
            "user_us": used["user_s"] / result.requests * 1e6,
            "system_us": used["system_s"] / result.requests * 1e6,
            "requests_per_second": result.rate,
            "p50_us": result.p50,
            "p99_us": result.p99,
            "p999_us": result.p999,
            **shares(used),
        }
    return result.requests


def drive_handshakes(step: Step, settings: Settings, load: Load, peer: Session, sample: Sample) -> float:
    """A handshake for each request: connections/s as fast as they go, and CPU per connection at one rate for
    all peers. In the first the slower peer leaves its clients' core idle for longer, and has to wake it more
    often, which on a virtual machine is much of what a connection costs."""
    scenario = step.scenario
    drive = partial(load.handshakes, scenario.connections, resume=scenario.resume, suites=scenario.suites)
    if settings.warm:
        drive(seconds=settings.warm)
    fast = drive(seconds=settings.seconds)
    meter = Meter(peer)
    result = drive(seconds=settings.seconds, rate=scenario.rate)
    used = meter.read()
    for each in (fast, result):
        if each.errors:
            sample.problems.append(f"{each.errors} connections failed")
        # Each client's first connection has no ticket yet.
        wanted = each.made - scenario.connections if scenario.resume else 0
        if each.resumed < wanted or (each.resumed and not scenario.resume):
            sample.problems.append(f"{each.resumed} of {each.made} handshakes were resumed")
    if result.made < 0.95 * scenario.rate * settings.seconds:
        sample.problems.append(f"{result.made / result.seconds:.0f} connections/s of {scenario.rate:g}")
    if result.made:
        sample.values = {
            "cpu_us": used["cpu_s"] / result.made * 1e6,
            "user_us": used["user_s"] / result.made * 1e6,
            "system_us": used["system_s"] / result.made * 1e6,
            "connections_per_second": fast.made / fast.seconds,
            **shares(used),
        }
    return fast.made + result.made


def drive_download(step: Step, settings: Settings, load: Load, peer: Session, sample: Sample) -> float:
    """Large bodies: CPU per MiB and MiB/s."""
    if settings.warm:
        load.fetch(step.scenario.connections, settings.warm)
    meter = Meter(peer)
    result = load.fetch(step.scenario.connections, settings.seconds)
    used = meter.read()
    mib = result.bytes / (1 << 20)
    if result.errors or result.refused:
        sample.problems.append(f"{result.errors} downloads broke, {result.refused} were refused")
    if mib:
        sample.values = {
            "cpu_us_per_mib": used["cpu_s"] / mib * 1e6,
            "user_us_per_mib": used["user_s"] / mib * 1e6,
            "system_us_per_mib": used["system_s"] / mib * 1e6,
            "mib_per_second": mib / result.seconds,
            **shares(used),
        }
    else:
        sample.problems.append("no byte arrived")
    return result.answers


def drive_idle(step: Step, settings: Settings, load: Load, peer: Session, sample: Sample) -> float:
    """Idle connections: memory (PSS) of the peer's processes with them less without them, per connection."""
    count = min(step.scenario.connections, step.peer.idle_connections or step.scenario.connections)
    load.closed(64, max(1, settings.warm))
    time.sleep(SETTLE)
    before = peer.pss()
    with load.held(count):
        time.sleep(SETTLE)
        after = peer.pss()
    sample.values = {
        "bytes_per_connection": (after - before) / count,
        "base_mib": before / (1 << 20),
        "connections": count,
    }
    return count


def drive_half(step: Step, settings: Settings, load: Load, peer: Session, sample: Sample) -> float:
    """Half of the peer's own peak, found just before: latency from when a request was due."""
    peak = load.closed(step.scenario.connections, settings.calibration()).rate
    meter = Meter(peer)
    result = load.paced(peak / 2, step.scenario.connections, settings.seconds)
    used = meter.read()
    if result.errors or result.refused or result.given_up:
        sample.problems.append(
            f"{result.errors} errors, {result.refused} refused, {result.given_up} never sent"
        )
    if result.answered:
        sample.values = {
            "p50_us": result.wait["p50"],
            "p99_us": result.wait["p99"],
            "p999_us": result.wait["p999"],
            "rate": peak / 2,
            "peak": peak,
            "cpu_us": used["cpu_s"] / result.answered * 1e6,
            **shares(used),
        }
    return result.answered


def drive_waits(step: Step, settings: Settings, load: Load, peer: Session, sample: Sample) -> float:
    """A rate at which the peer has hardly ever two requests: latency over what the slowest part takes."""
    load.paced(WAITS_RATE, step.scenario.connections, max(1, settings.warm))
    meter = Meter(peer)
    result = load.paced(WAITS_RATE, step.scenario.connections, settings.seconds)
    used = meter.read()
    if result.errors or result.refused or result.given_up:
        sample.problems.append(
            f"{result.errors} errors, {result.refused} refused, {result.given_up} never sent"
        )
    if result.answered:
        sample.values = {
            "p50_of_slowest": result.wait["p50"] / SLOWEST_MS / 1000,
            "p50_us": result.wait["p50"],
            "p99_us": result.wait["p99"],
            "p999_us": result.wait["p999"],
            "cpu_us": used["cpu_s"] / result.answered * 1e6,
            **shares(used),
        }
    return result.answered


def drive_overload(step: Step, settings: Settings, load: Load, peer: Session, sample: Sample) -> float:
    """Twice the peer's own peak: answers within a client's patience, as a share of the peak.

    Refusals and requests given up are what overload is; broken connections make the sample invalid.
    """
    peak = load.closed(64, settings.calibration()).rate
    meter = Meter(peer)
    result = load.paced(peak * 2, step.scenario.connections, settings.seconds, GIVE_UP_MS)
    used = meter.read()
    if result.errors:
        sample.problems.append(f"{result.errors} answers never came or broke")
    sample.values = {
        "goodput_of_peak": result.in_time / result.seconds / peak,
        "goodput": result.in_time / result.seconds,
        "peak": peak,
        "p50_us": result.service["p50"],
        "p99_us": result.service["p99"],
        "p999_us": result.service["p999"],
        "refused_share": result.refused / result.due,
        "given_up_share": result.given_up / result.due,
        **shares(used),
    }
    return result.answered


def shares(used: dict[str, float]) -> dict[str, float]:
    """The part of a meter's reading that tells how the cores were used."""
    return {key: used[key] for key in ("busy", "foreign", "load_busy")}


Driver = Callable[[Step, Settings, Load, Session, Sample], float]
DRIVERS: dict[Kind, Driver] = {
    Kind.CLOSED: drive_closed,
    Kind.DOWNLOAD: drive_download,
    Kind.HANDSHAKE: drive_handshakes,
    Kind.IDLE: drive_idle,
    Kind.HALF: drive_half,
    Kind.WAITS: drive_waits,
    Kind.OVERLOAD: drive_overload,
}


def run(steps: Sequence[Step], settings: Settings) -> Iterator[tuple[Step, Sample, float]]:
    """Takes the samples in order; yields each with the estimate of seconds left."""
    progress = Progress(steps, settings)
    for step in steps:
        began = time.monotonic()
        sample = measure(step, settings)
        progress.done(step, time.monotonic() - began)
        yield step, sample, progress.seconds_left()
