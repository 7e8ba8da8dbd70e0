"""The Lua scripts of the Redis registry: each one reads and writes in one atomic step."""

from __future__ import annotations

from typing import Final

# Returns the process that owns the claim under a key: nil if there is no key, false if another program uses it.
_OWNER_OF: Final = """
local function owner_of(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then return nil end
  local value = kind == 'string' and redis.call('GETRANGE', key, 0, 32) or ''
  return #value == 32 and string.match(value, '^%x+$') or false
end
"""

# KEYS: records. ARGV: process, lease (ms), channel, then the records' names.
# Returns the indices of the records that another process has claimed.
CLAIM: Final = (
    _OWNER_OF
    + """
local lease, held, names = tonumber(ARGV[2]), {}, {}
for i, key in ipairs(KEYS) do
  local owner = owner_of(key)
  if owner and owner ~= ARGV[1] then
    held[#held + 1] = i
    local left = redis.call('PTTL', key)
    if left < 0 or left > lease then redis.call('PEXPIRE', key, lease) end
  else
    if owner ~= false then redis.call('SET', key, ARGV[1], 'PX', lease) end
    names[#names + 1] = ARGV[3 + i]
  end
end
if #names > 0 then
  redis.call('PUBLISH', ARGV[3], cjson.encode({by = ARGV[1], kind = 'asked', keys = names}))
end
return held
"""
)

# KEYS: records. ARGV: process, lease (ms).
RENEW: Final = (
    _OWNER_OF
    + """
for _, key in ipairs(KEYS) do
  if owner_of(key) == ARGV[1] then redis.call('PEXPIRE', key, ARGV[2]) end
end
return 1
"""
)

# KEYS: records. ARGV: process, "free", "locked" or "release", channel, message.
DROP: Final = (
    _OWNER_OF
    + """
for _, key in ipairs(KEYS) do
  local owner = owner_of(key)
  if owner and (ARGV[2] == 'free' or owner == ARGV[1]) then redis.call('DEL', key) end
end
redis.call('PUBLISH', ARGV[3], ARGV[4])
return #KEYS
"""
)

# KEYS: the slots of an origin and the line for them, two sorted sets: calls by the end of their lease, and by the
# instant of their coming, in ms on the server's clock. Other programs' keys of these names are left alone.
# A slot that ends later than a lease from now is not counted: it stems from a server whose clock was ahead.
_SLOTS: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function is_ours(key)
  local kind = redis.call('TYPE', key).ok
  return kind == 'zset' or kind == 'none'
end
local function vacant(limit, lease)
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
  return limit - redis.call('ZCOUNT', KEYS[1], now, now + lease)
end
local function hold(call, lease)
  redis.call('ZADD', KEYS[1], now + lease, call)
  redis.call('PEXPIRE', KEYS[1], lease * 2)
end
"""

# ARGV: limit, lease (ms), then calls, each of which gets a slot, or is put in line, or keeps what it has.
# Returns the indices of those with a slot.
TAKE_SLOTS: Final = (
    _SLOTS
    + """
local limit, lease, got = tonumber(ARGV[1]), tonumber(ARGV[2]), {}
local ours = is_ours(KEYS[1]) and is_ours(KEYS[2])
for i = 3, #ARGV do
  local free = ours and vacant(limit, lease) or 1
  if not ours then
    got[#got + 1] = i - 2
  elseif redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    hold(ARGV[i], lease)
    got[#got + 1] = i - 2
  else
    redis.call('ZADD', KEYS[2], 'NX', now, ARGV[i])
    if redis.call('ZRANK', KEYS[2], ARGV[i]) < free then
      redis.call('ZREM', KEYS[2], ARGV[i])
      hold(ARGV[i], lease)
      got[#got + 1] = i - 2
    else
      redis.call('PEXPIRE', KEYS[2], lease * 2)
    end
  end
end
return got
"""
)

# ARGV: limit, lease (ms), call, process, channel.
# Gives the slot of the call to the first in line; returns and publishes who got one.
GIVE_SLOT: Final = (
    _SLOTS
    + """
local lease, next = tonumber(ARGV[2]), {}
if not (is_ours(KEYS[1]) and is_ours(KEYS[2])) then return next end
redis.call('ZREM', KEYS[2], ARGV[3])
redis.call('ZREM', KEYS[1], ARGV[3])
local free = vacant(tonumber(ARGV[1]), lease)
if free > 0 then next = redis.call('ZRANGE', KEYS[2], 0, free - 1) end
for _, call in ipairs(next) do
  redis.call('ZREM', KEYS[2], call)
  hold(call, lease)
end
if #next > 0 then
  redis.call('PUBLISH', ARGV[5], cjson.encode({by = ARGV[4], kind = 'slot', keys = next}))
end
return next
"""
)
