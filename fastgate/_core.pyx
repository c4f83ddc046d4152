# cython: language_level=3
"""The compiled hot path. This file only includes its parts: `core/` decides (no I/O, the time passed in),
`proxy/` moves bytes."""
include "core/text.pyx"
include "core/reasons.pyx"
include "core/address.pyx"
include "core/ip_set.pyx"
include "core/bucket.pyx"
include "core/samples.pyx"
include "core/rate_limit.pyx"
include "proxy/log_writer.pyx"
include "proxy/access_log.pyx"
include "core/balance.pyx"
include "core/counters.pyx"
