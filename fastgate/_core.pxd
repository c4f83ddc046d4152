# cython: language_level=3
# The contract of the compiled module, room by room. `core/` decides, `proxy/` moves bytes.
include "core/text.pxd"
include "core/reasons.pxd"
include "core/request.pxd"
include "core/target.pxd"
include "core/key_table.pxd"
include "core/conditions.pxd"
include "core/route_table.pxd"
include "core/rewrite.pxd"
include "core/record.pxd"
include "core/head.pxd"
include "core/chunked.pxd"
