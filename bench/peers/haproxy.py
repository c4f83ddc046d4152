"""HAProxy: one process, one thread."""

from __future__ import annotations

from typing import ClassVar

from bench.model import route_prefix
from bench.peers.base import KEEP_ALIVE, Peer, Place, find, first_line, need


class Haproxy(Peer):
    """HAProxy from Debian, configured by hand for the shape."""

    name = "haproxy"
    title = "HAProxy"
    notes: ClassVar[tuple[str, ...]] = (
        "option splice-response, which halves what large bodies cost it and costs small ones nothing",
        "logs `option httplog` to stdout, a file here: HAProxy has no buffered log of its own, each line is "
        "a write (a syslog socket costs it more)",
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
        config = place.write(
            "haproxy.cfg",
            # 20,000 descriptors are enough for what is measured; HAProxy would ask for two per connection.
            f"global\n    nbthread 1\n    maxconn 12000\n    no strict-limits\n{log}"
            "defaults\n    mode http\n    http-reuse always\n"
            "    option splice-response\n    option forwardfor\n"
            + ("    log global\n    option httplog\n" if shape.access_log else "")
            + f"    timeout client {KEEP_ALIVE}s\n    timeout http-keep-alive {KEEP_ALIVE}s\n"
            "    timeout http-request 10s\n    timeout connect 2s\n    timeout server 60s\n"
            "frontend bench\n" + "\n".join(front) + "\n"
            "backend none\n    http-request return status 404\n"
            f"backend svc\n    server one 127.0.0.1:{place.upstream_port}\n",
        )
        return [need("haproxy"), "-db", "-f", str(config)]
