"""nginx: one worker process under its master."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from bench.model import AGGREGATE, EJECTION, FAILURES, Feature, Shape, route_prefix
from bench.peers.base import CONNECT_MS, KEEP_ALIVE, POOL, TRIES, Peer, Place, find, first_line, need

# Debian: libnginx-mod-http-lua
LUA = Path("/usr/lib/nginx/modules/ngx_http_lua_module.so")
MODULES = f"load_module {LUA.parent}/ndk_http_module.so;\nload_module {LUA};\n"
HOOKS = """\
    init_by_lua_block {{
        hooks = {{}}
        for i = 1, {count} do hooks[i] = function() return nil end end
    }}"""
# Debian: lua-cjson
CJSON = next(Path("/usr/lib").glob("*/lua/5.1/cjson.so"), Path("/usr/lib/lua/5.1/cjson.so"))
AGGREGATE_HTTP = """\
    lua_package_cpath "{folder}/?.so;;";
    init_by_lua_block {{ cjson = require "cjson" }}"""
AGGREGATE_SERVER = """\
        location /parts/ {{ internal; proxy_pass http://svc; }}
        location = {path} {{
            content_by_lua_block {{
                local answers = {{ ngx.location.capture_multi({{ {asked} }}) }}
                local page, names = {{}}, {{ {names} }}
                for i = 1, #answers do
                    if answers[i].status ~= 200 then return ngx.exit(502) end
                    page[names[i]] = cjson.decode(answers[i].body)
                end
                local body = cjson.encode(page)
                ngx.header["Content-Type"] = "application/json"
                ngx.header["Content-Length"] = #body
                ngx.print(body)
            }}
        }}"""
RUN_HOOKS = "        access_by_lua_block { for i = 1, #hooks do hooks[i]() end }"

HTTP = """\
    keepalive_timeout {keep_alive}s;
    keepalive_requests 1000000000;
    client_max_body_size 10m;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u;
    scgi_temp_path {folder}/s;
    # Nothing to disk: a response beyond the buffers waits for the client, as it does in the other peers.
    proxy_max_temp_file_size 0;
    # As an operator who serves large bodies sets it: the default of 8 x 4k triples the cost of a MiB.
    proxy_buffers 8 64k;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
"""


def endpoints(place: Place) -> str:
    """The upstream's block and how its failures are met."""
    survival = place.shape.survival
    options = ""
    if place.shape.endpoints > 1:
        outlier = survival is not None and survival.outlier
        options = f" max_fails={FAILURES} fail_timeout={EJECTION}s" if outlier else " max_fails=0"
    if survival is not None and survival.limit:
        options += f" max_conns={survival.limit}"
    lines = [f"        server 127.0.0.1:{port}{options};\n" for port in place.upstream_ports]
    least = "        least_conn;\n" if place.shape.endpoints > 1 else ""
    block = (
        f"    upstream svc {{\n{least}{''.join(lines)}        keepalive {POOL};\n"
        "        keepalive_requests 1000000000;\n    }\n"
    )
    if survival is None or not survival.retry:
        return block + ("    proxy_next_upstream off;\n" if place.shape.endpoints > 1 else "")
    return block + (
        "    proxy_next_upstream error timeout http_500 http_502 http_503 http_504;\n"
        f"    proxy_next_upstream_tries {TRIES};\n    proxy_connect_timeout {CONNECT_MS}ms;\n"
        f"    proxy_read_timeout {survival.try_timeout * 1000:.0f}ms;\n"
    )


class Nginx(Peer):
    """nginx from Debian, configured by hand for the shape."""

    name = "nginx"
    title = "nginx"
    features = frozenset(Feature)
    notes: ClassVar[tuple[str, ...]] = (
        "access log `combined` with buffer=64k flush=1s",
        "routes are prefix locations (nginx keeps them in a tree); the IP list is `geo` (a radix tree), not "
        "the linear allow/deny; the rate limit is limit_req per client address, nodelay",
        "proxy_buffers 8 64k, where nginx's default of 8 x 4k costs it two to three times as much per MiB; "
        "proxy_max_temp_file_size 0, so that no body touches the disk",
        "endpoints: least_conn; failures are met by proxy_next_upstream (it has to retry a 500 elsewhere to "
        "count it as a failure) and max_fails; no active checks, no breaker, no queue at max_conns",
        "hooks: Debian's Lua module (LuaJIT), access_by_lua_block with one function call for each hook",
        "an aggregation: ngx.location.capture_multi in content_by_lua_block, cjson both ways (numbers become "
        "doubles)",
        "its prefix locations are not bound to path elements; they end in a slash here",
    )

    def missing(self) -> str | None:
        return None if find("nginx") else "nginx (Debian: nginx-light)"

    def lacks(self, shape: Shape) -> frozenset[Feature]:
        lua, cjson = LUA.exists(), CJSON.exists()
        able = {Feature.PLUGINS: lua, Feature.AGGREGATION: lua and cjson}
        return super().lacks(shape) | {one for one in shape.features() if not able.get(one, True)}

    def version(self) -> str:
        return first_line([need("nginx"), "-v"]).removeprefix("nginx version: ")

    def command(self, place: Place) -> list[str]:
        shape = place.shape
        http = [
            HTTP.format(keep_alive=KEEP_ALIVE, folder=place.folder) + endpoints(place),
            f"    access_log {place.log} combined buffer=64k flush=1s;"
            if shape.access_log
            else "    access_log off;",
        ]
        server = [f"        listen 127.0.0.1:{place.port} backlog=4096;"]
        if shape.tls:
            cert, key = place.certificate()
            server[0] = server[0].replace(" backlog", " ssl backlog")
            server.append(f"        ssl_certificate {cert};\n        ssl_certificate_key {key};")
            server.append("        ssl_protocols TLSv1.2 TLSv1.3;\n        ssl_session_cache off;")
        if shape.rate_limit:
            http.append(f"    limit_req_zone $binary_remote_addr zone=limit:10m rate={shape.rate}r/s;")
            server.append("        limit_req_status 429;")
            server.append(f"        limit_req zone=limit burst={min(shape.rate, 100_000)} nodelay;")
        if shape.ip_prefixes:
            entries = "".join(f"        {prefix} 1;\n" for prefix in shape.prefixes())
            http.append(f"    geo $office {{\n        default 0;\n{entries}    }}")
            server.append("        if ($office = 0) { return 403; }")
        if shape.plugins:
            http.append(HOOKS.format(count=shape.plugins))
            server.append(RUN_HOOKS)
        if shape.parts:
            parts = shape.part_paths()
            http.append(AGGREGATE_HTTP.format(folder=CJSON.parent))
            server.append(
                AGGREGATE_SERVER.format(
                    path=f"{route_prefix(0)}{AGGREGATE}",
                    asked=", ".join(f'{{ "{path}" }}' for path in parts.values()),
                    names=", ".join(f'"{name}"' for name in parts),
                )
            )
        server += [
            f"        location {route_prefix(i)}/ {{ proxy_pass http://svc; }}" for i in range(shape.routes)
        ]
        server.append("        location / { return 404; }")
        user = "user root;\n" if os.geteuid() == 0 else ""  # the worker must reach the folder
        modules = MODULES if shape.plugins or shape.parts else ""
        config = place.write(
            "nginx.conf",
            f"{modules}{user}daemon off;\nworker_processes 1;\nworker_rlimit_nofile 20000;\n"
            f"pid {place.folder}/nginx.pid;\nerror_log {place.folder}/error.log warn;\n"
            f"events {{ worker_connections 16000; }}\n"
            "http {\n" + "\n".join(http) + "\n    server {\n" + "\n".join(server) + "\n    }\n}\n",
        )
        return [
            need("nginx"),
            "-e",
            str(place.folder / "error.log"),
            "-p",
            str(place.folder),
            "-c",
            str(config),
        ]
