# cython: language_level=3
# The contract of the compiled module, room by room. `core/` decides, `proxy/` moves bytes.

cimport cython

# Classes are final unless something of ours derives from them: their methods are then called directly.
# -- core
include "core/text.pxd"
include "core/reasons.pxd"
include "core/request.pxd"
include "core/record.pxd"
include "core/address.pxd"
include "core/head.pxd"
include "core/chunked.pxd"
include "core/proxy_header.pxd"
include "core/header_rules.pxd"
include "core/target.pxd"
include "core/key_table.pxd"
include "core/conditions.pxd"
include "core/route_table.pxd"
include "core/rewrite.pxd"
include "core/ip_set.pxd"
include "core/bucket.pxd"
include "core/samples.pxd"
include "core/request_key.pxd"
include "core/rate_limit.pxd"
include "core/shared_table.pxd"
include "core/endpoint_state.pxd"
include "core/seat.pxd"
include "core/balance.pxd"
include "core/counters.pxd"
# -- proxy
include "proxy/log_writer.pxd"
include "proxy/access_log.pxd"
include "proxy/timer_wheel.pxd"
include "proxy/stack.pxd"
include "proxy/wire.pxd"
include "proxy/snapshot.pxd"
include "proxy/exchange.pxd"
include "proxy/pool.pxd"
include "proxy/downstream1.pxd"
include "proxy/upstream1.pxd"
include "proxy/worker.pxd"
