"""HAProxy: one process, one thread."""

from __future__ import annotations

from typing import ClassVar

from bench.model import FAILURES, Feature, route_prefix
from bench.peers.base import (
    CHECK_MS,
    CHECK_TIMEOUT_MS,
    CHECK_TIMES,
    CONNECT_MS,
    KEEP_ALIVE,
    TRIES,
    Peer,
    Place,
    find,
    first_line,
    need,
)

QUEUE_MS = 100  # that a request waits for an endpoint at its limit


def backend(place: Place) -> str:
    """The backend and how its failures are met."""
    survival = place.shape.survival
    lines = ["    balance leastconn"] if place.shape.endpoints > 1 else []
    options = ""
    if survival is not None:
        lines.append(f"    timeout connect {CONNECT_MS}ms")
        if survival.checks or survival.outlier:
            lines += ["    option httpchk GET /health", f"    timeout check {CHECK_TIMEOUT_MS}ms"]
            options += f" check inter {CHECK_MS}ms fall {CHECK_TIMES} rise {CHECK_TIMES}"
        if survival.outlier:
            options += f" observe layer7 error-limit {FAILURES} on-error mark-down"
        if survival.limit:
            lines += [f"    timeout queue {QUEUE_MS}ms", "    option abortonclose"]
            options += f" maxconn {survival.limit}"
    if survival is not None and survival.retry:
        lines += [
            f"    retries {TRIES - 1}",
            "    option redispatch 1",
            "    retry-on conn-failure empty-response response-timeout",
            "    http-request disable-l7-retry if !METH_GET",
            f"    timeout server {survival.try_timeout * 1000:.0f}ms",
        ]
    lines += [f"    server s{port} 127.0.0.1:{port}{options}" for port in place.upstream_ports]
    return "backend svc\n" + "\n".join(lines) + "\n"


class Haproxy(Peer):
    """HAProxy from Debian, configured by hand for the shape."""

    name = "haproxy"
    title = "HAProxy"
    features = Peer.features - {Feature.PLUGINS}
    notes: ClassVar[tuple[str, ...]] = (
        "option splice-response, which halves what large bodies cost it and costs small ones nothing",
        "logs `option httplog` to stdout, a file here: HAProxy has no buffered log of its own, each line is "
        "a write (a syslog socket costs it more)",
        "endpoints: leastconn; failures are met by retry-on with redispatch, active checks, and `observe "
        "layer7 on-error mark-down`, which needs the checks to come back; a limit is maxconn with its queue",
        "routes are a map file looked up with map_beg (a prefix tree); the IP list is `src -f` (a prefix "
        "tree); the rate limit is a stick table's http_req_rate per source, a sliding window, no bucket",
    )

    def missing(self) -> str | None:
        return None if find("haproxy") else "haproxy"

    def version(self) -> str:
        return first_line([need("haproxy"), "-v"]).split(" - ")[0]

    def command(self, place: Place) -> list[str]:
        shape = place.shape
        front = [f"    bind 127.0.0.1:{place.port} backlog 4096"]
        if shape.tls:
            cert, key = place.certificate()
            both = place.write("both.pem", cert.read_text() + key.read_text())
            front[0] += f" ssl crt {both} ssl-min-ver TLSv1.2"
        if shape.ip_prefixes:
            office = place.write("office.txt", "\n".join(shape.prefixes()) + "\n")
            front += [f"    acl office src -f {office}", "    http-request deny unless office"]
        if shape.rate_limit:
            front += [
                "    stick-table type ip size 100k expire 10s store http_req_rate(1s)",
                "    http-request track-sc0 src",
                f"    http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {shape.rate} }}",
            ]
        if shape.routes == 1:
            front += [f"    use_backend svc if {{ path_beg {route_prefix(0)}/ }}", "    default_backend none"]
        else:
            table = "".join(f"{route_prefix(i)}/ svc\n" for i in range(shape.routes))
            front.append(f"    use_backend %[path,map_beg({place.write('routes.map', table)},none)]")
        log = "    log stdout format raw local0\n" if shape.access_log else ""
        admin = ""
        if shape.survival is not None and shape.survival.admin:
            admin = f"    stats socket ipv4@127.0.0.1:{place.admin_port} level admin expose-fd listeners\n"
        config = place.write(
            "haproxy.cfg",
            # 20,000 descriptors are enough for what is measured; HAProxy would ask for two per connection.
            f"global\n    nbthread 1\n    maxconn 12000\n    no strict-limits\n{log}{admin}"
            "defaults\n    mode http\n    http-reuse always\n"
            "    option splice-response\n    option forwardfor\n"
            + ("    log global\n    option httplog\n" if shape.access_log else "")
            + f"    timeout client {KEEP_ALIVE}s\n    timeout http-keep-alive {KEEP_ALIVE}s\n"
            "    timeout http-request 10s\n    timeout connect 2s\n    timeout server 60s\n"
            "frontend bench\n" + "\n".join(front) + "\n"
            "backend none\n    http-request return status 404\n" + backend(place),
        )
        return [need("haproxy"), *(["-W"] if admin else []), "-db", "-f", str(config)]
