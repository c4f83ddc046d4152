# cython: language_level=3
# The contract of the compiled module, room by room. `core/` decides, `proxy/` moves bytes.
include "core/text.pxd"
include "core/reasons.pxd"
include "core/request.pxd"
include "core/record.pxd"
include "core/address.pxd"
include "core/ip_set.pxd"
include "core/bucket.pxd"
include "core/samples.pxd"
include "core/rate_limit.pxd"
