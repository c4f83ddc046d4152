"""The decisions as Redis makes them: one script each, on Redis' own clock.

Each answers [granted, left, retry, reset]: tokens that were taken (0: refused), whole tokens left,
milliseconds until the request could pass, and until everything is there again.
"""

from __future__ import annotations

import hashlib
from typing import Final

# GCRA (ITU-T I.371). KEYS[1]: when the bucket is full again, in microseconds since 2025: so small a number
# that a double keeps thousandths of them. ARGV: microseconds of a token, of a full bucket, tokens wanted at
# least and at most.
TOKEN_BUCKET: Final = """
local t = redis.call('TIME')
local now = (t[1] - 1735689600) * 1000000 + t[2]
local interval, full = tonumber(ARGV[1]), tonumber(ARGV[2])
local least, most = tonumber(ARGV[3]), tonumber(ARGV[4])
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local left = math.floor((full - (due - now)) / interval + 0.0001)
local granted = 0
if left >= least then
  granted = math.min(most, left)
  due = due + granted * interval
  left = left - granted
  redis.call('SET', KEYS[1], string.format('%.3f', due), 'PX', math.ceil((due - now) / 1000) + 1)
end
local missing = math.max(0, least * interval - (full - (due - now)))
return {granted, math.max(0, left), math.ceil(missing / 1000), math.ceil((due - now) / 1000)}
"""

# What a request turned out to cost beyond what was taken; a bucket owes a full one at the most. ARGV:
# microseconds of a token, of a full bucket, tokens.
CHARGE: Final = """
local t = redis.call('TIME')
local now = (t[1] - 1735689600) * 1000000 + t[2]
local interval, full = tonumber(ARGV[1]), tonumber(ARGV[2])
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
due = math.max(now, math.min(due + tonumber(ARGV[3]) * interval, now + 2 * full))
redis.call('SET', KEYS[1], string.format('%.3f', due), 'PX', math.ceil((due - now) / 1000) + 1)
return 1
"""

# Two counters: of this window, and of the one before by the part of it that still lies within a window's
# length. It takes the requests of the window before as evenly spread; where they were not, it is off by
# what they were uneven. KEYS[1]: a hash. ARGV: microseconds of a window, the limit, tokens.
SLIDING_WINDOW: Final = """
local t = redis.call('TIME')
local now = (t[1] - 1735689600) * 1000000 + t[2]
local window, limit, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local index = math.floor(now / window)
local was = redis.call('HMGET', KEYS[1], 'i', 'c', 'p')
local current, previous = tonumber(was[2] or 0), tonumber(was[3] or 0)
local behind = index - tonumber(was[1] or index)
if behind == 1 then previous, current = current, 0 elseif behind ~= 0 then previous, current = 0, 0 end
local into = (now - index * window) / window
local used = previous * (1 - into) + current
local granted = 0
if used + cost <= limit then
  granted = cost
  current = current + cost
  used = used + cost
end
redis.call('HSET', KEYS[1], 'i', index, 'c', current, 'p', previous)
redis.call('PEXPIRE', KEYS[1], math.ceil(2 * window / 1000))
local retry = 0
if granted == 0 then
  local over = used + cost - limit
  if previous > 0 and over <= previous * (1 - into) then retry = over / previous * window
  else retry = (1 - into) * window end
end
local ends = math.ceil((1 - into) * window / 1000)
return {granted, math.max(0, math.floor(limit - used)), math.ceil(retry / 1000), ends}
"""

# KEYS[1] names the period. ARGV: the limit, tokens, milliseconds until the period ends.
QUOTA: Final = """
local limit, cost = tonumber(ARGV[1]), tonumber(ARGV[2])
local used = tonumber(redis.call('GET', KEYS[1]) or 0)
local granted = 0
if used + cost <= limit then
  granted = cost
  used = redis.call('INCRBY', KEYS[1], cost)
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
local ends = tonumber(ARGV[3])
return {granted, math.max(0, limit - used), granted == 0 and ends or 0, ends}
"""


def digest(script: str) -> str:
    """By which Redis knows it once it is loaded."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
