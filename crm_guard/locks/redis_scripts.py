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
# instant of their coming, in ms on the server's clock.
# ARGV: limit, lease (ms), prefix of `alive`, channel, process, then calls.
# `serve` gives free slots to the first in line, and tells their processes; it drops calls of processes that are no
# more. A slot that ends later than a lease from now is not counted: it stems from a server whose clock was ahead.
_SLOTS: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local limit, lease, alive, channel, me = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local slots, line = KEYS[1], KEYS[2]
local function fits(reply) return type(reply) ~= 'table' or not reply.err end
local ours = fits(redis.pcall('ZREMRANGEBYSCORE', slots, '-inf', now)) and fits(redis.pcall('ZCARD', line))
local function serve()
  local free, mine = limit - redis.call('ZCOUNT', slots, now, now + lease), {}
  for _ = 1, 1000 do
    if free <= 0 then break end
    local call = redis.call('ZRANGE', line, 0, 0)[1]
    if not call then break end
    redis.call('ZREM', line, call)
    local process = string.match(call, '^[^:]*')
    if process == me or redis.call('EXISTS', alive .. process) == 1 then
      redis.call('ZADD', slots, now + lease, call)
      free = free - 1
      if process == me then
        mine[#mine + 1] = call
      else
        redis.call('PUBLISH', channel .. ':' .. process, cjson.encode({by = me, kind = 'slot', keys = {call}}))
      end
    end
  end
  redis.call('PEXPIRE', slots, lease * 2)
  return mine
end
"""

# Each of the calls keeps its slot, or keeps its place in line, or lines up.
# Returns the calls of the process that have a slot now.
TAKE_SLOTS: Final = (
    _SLOTS
    + """
local calls = {}
for i = 6, #ARGV do calls[#calls + 1] = ARGV[i] end
if not ours then return calls end
redis.call('SET', alive .. me, 1, 'PX', lease)
local has_slot, kept, rest = {}, {}, {}
if #calls == 1 then
  has_slot[calls[1]] = redis.call('ZSCORE', slots, calls[1])
else
  for _, call in ipairs(redis.call('ZRANGE', slots, 0, -1)) do has_slot[call] = true end
end
for _, call in ipairs(calls) do
  local args = has_slot[call] and kept or rest
  args[#args + 1] = has_slot[call] and now + lease or now
  args[#args + 1] = call
end
if #kept > 0 then redis.call('ZADD', slots, unpack(kept)) end
if #rest > 0 then redis.call('ZADD', line, 'NX', unpack(rest)) end
local got = serve()
for i = 2, #kept, 2 do got[#got + 1] = kept[i] end
redis.call('PEXPIRE', line, lease * 2)
return got
"""
)

# The call releases its slot, or its place in line.
# Returns the calls of the process that got one.
GIVE_SLOT: Final = (
    _SLOTS
    + """
if not ours then return {} end
redis.call('ZREM', line, ARGV[6])
redis.call('ZREM', slots, ARGV[6])
return serve()
"""
)
