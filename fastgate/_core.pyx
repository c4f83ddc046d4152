# cython: language_level=3
"""The compiled hot path. This file only includes its parts: `core/` decides (no I/O, the time passed in),
`proxy/` moves bytes."""
include "core/text.pyx"
include "core/reasons.pyx"
include "core/authority.pyx"
include "core/target.pyx"
include "core/key_table.pyx"
include "core/conditions.pyx"
include "core/route_path.pyx"
include "core/route_build.pyx"
include "core/route_table.pyx"
include "core/rewrite.pyx"
include "core/measure.pyx"
