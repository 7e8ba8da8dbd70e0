"""The Lua scripts of the Redis registry: each one reads and writes in one atomic step."""

from __future__ import annotations

from typing import Final

_NOW: Final = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"

# Returns the process that owns the claim under a key, and its due instant: nil if there is no key, false if another
# program uses it. Our values have less than 64 characters.
_CLAIM_OF: Final = """
local function claim_of(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then return nil end
  local value = kind == 'string' and redis.call('GETRANGE', key, 0, 63) or ''
  local owner, due = string.match(value, '^(%x+) (%d+)$')
  return owner or false, tonumber(due)
end
"""

# KEYS: records. ARGV: process, due in (ms), lease (ms), latest due (ms from now) at which a claim of another
# process counts, "all" or "some", channel, then the records' names.
# Returns index and ms until due, pairwise, of the records that another process has claimed.
CLAIM: Final = (
    _NOW
    + _CLAIM_OF
    + """
local lease, latest = tonumber(ARGV[3]), tonumber(ARGV[4])
local held, got, names = {}, {}, {}
for i, key in ipairs(KEYS) do
  local owner, due = claim_of(key)
  if owner and owner ~= ARGV[1] and due - now <= latest then
    held[#held + 1] = i
    held[#held + 1] = math.max(due - now, 0)
    local left = redis.call('PTTL', key)
    if left < 0 or left > lease then redis.call('PEXPIRE', key, lease) end
  else
    if owner ~= false then got[#got + 1] = key end
    names[#names + 1] = ARGV[6 + i]
  end
end
if #names == 0 or (#held > 0 and ARGV[5] == 'all') then return held end
local due = tonumber(ARGV[2])
for _, key in ipairs(got) do
  redis.call('SET', key, ARGV[1] .. ' ' .. string.format('%.0f', now + due), 'PX', lease)
end
redis.call('PUBLISH', ARGV[6], cjson.encode({by = ARGV[1], kind = 'locked', due = due, keys = names}))
return held
"""
)

# KEYS: records. ARGV: process, lease (ms).
RENEW: Final = (
    _CLAIM_OF
    + """
for _, key in ipairs(KEYS) do
  if claim_of(key) == ARGV[1] then redis.call('PEXPIRE', key, ARGV[2]) end
end
return 1
"""
)

# KEYS: records. ARGV: process, "free" or "release", channel, then the records' names.
DROP: Final = (
    _CLAIM_OF
    + """
local names = {}
for i, key in ipairs(KEYS) do
  local owner = claim_of(key)
  if ARGV[2] == 'free' or owner == ARGV[1] then
    if owner then redis.call('DEL', key) end
    names[#names + 1] = ARGV[3 + i]
  end
end
if #names > 0 then
  redis.call('PUBLISH', ARGV[3], cjson.encode({by = ARGV[1], kind = ARGV[2], keys = names}))
end
return #names
"""
)

# KEYS: the pace of an origin. ARGV: call, limit, lease (ms).
# A slot that ends later than a lease from now is not counted: it stems from a server whose clock was ahead.
TAKE_SLOT: Final = (
    _NOW
    + """
local kind, lease = redis.call('TYPE', KEYS[1]).ok, tonumber(ARGV[3])
if kind ~= 'zset' and kind ~= 'none' then return 1 end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not known and redis.call('ZCOUNT', KEYS[1], now, now + lease) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + lease, ARGV[1])
redis.call('PEXPIRE', KEYS[1], lease * 2)
return 1
"""
)

# KEYS: the pace of an origin. ARGV: call, process, channel, origin.
GIVE_SLOT: Final = """
if redis.call('TYPE', KEYS[1]).ok == 'zset' and redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then
  redis.call('PUBLISH', ARGV[3], cjson.encode({by = ARGV[2], kind = 'slot', keys = {ARGV[4]}}))
end
return 1
"""
