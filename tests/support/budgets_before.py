"""The budgets of the version before, which counted with GCRA: a rolling upgrade has both."""

from __future__ import annotations

import redis

from core.integration.limits import Rate
from core.limits.budgets import gcra

TAKE_BEFORE = """
-- The script of the version before, without its case for a missing mark.
local now = tonumber(ARGV[6])
local mark = redis.call('HGET', KEYS[1], '')
local interval, tolerance = tonumber(ARGV[2]), tonumber(ARGV[3])
local tat = tonumber(redis.call('HGET', KEYS[1], ARGV[1]))
if not tat then
    tat = now
    if tonumber(mark) > 0 then tat = tonumber(mark) + tolerance + tonumber(ARGV[4]) * interval end
end
local theirs = tonumber(redis.call('GET', KEYS[2]))
if theirs and theirs > tat then tat = theirs end
if tat < now then tat = now end
if tat - tolerance - now > 0 then return tat - tolerance - now end
tat = tat + tonumber(ARGV[5]) * interval
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', tat))
redis.call('SET', KEYS[2], string.format('%.0f', tat))
return 0
"""


def take_before(
    client: redis.Redis, hash_key: str, key: str, limit: Rate, units: int, heaviest: int, now: int
) -> int:
    """Take units as a worker of the version before, at a time in microseconds.

    Returns:
      0, or the microseconds to wait.
    """
    old = hash_key.removesuffix("rates") + f"budget/{key}"
    arguments = [key, *gcra(limit, heaviest), heaviest, units, now]
    return int(client.register_script(TAKE_BEFORE)(keys=[hash_key, old], args=arguments))
