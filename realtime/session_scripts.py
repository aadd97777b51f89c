"""The scripts that Redis runs for `sessions_redis`: each operation that reads and writes is one."""

from __future__ import annotations

from typing import Final

from realtime.redis_scripts import Script

# A revocation is `at expires stamp`, in the hash by `kind:id`, and both on the channel.
_SHARED: Final = """
-- KEYS: the revocations, their expiries, their channel.
-- ARGV: the present, the prefix of sessions, that of users' sessions.
local now = tonumber(ARGV[1])

local function expire(key, moment)
  redis.call('PEXPIRE', key, string.format('%.0f', math.max(1, math.ceil((moment - now) * 1000))))
end

local function expire_with_last(key, scores)
  local last = redis.call('ZRANGE', scores, -1, -1, 'WITHSCORES')[2]
  if last then expire(key, tonumber(last)) end
end

local function tidy()
  local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, 100)
  if #gone > 0 then
    redis.call('HDEL', KEYS[1], unpack(gone))
    redis.call('ZREM', KEYS[2], unpack(gone))
  end
  expire_with_last(KEYS[1], KEYS[2])
  expire_with_last(KEYS[2], KEYS[2])
end

local function known(member)
  local row = redis.call('HGET', KEYS[1], member)
  if row then return string.match(row, '^(%S+) (%S+) (%S+)$') end
end

local function write(member, at, expires, stamp)
  local row = at .. ' ' .. expires .. ' ' .. stamp
  redis.call('HSET', KEYS[1], member, row)
  redis.call('ZADD', KEYS[2], expires, member)
  redis.call('PUBLISH', KEYS[3], row .. ' ' .. member)
  return row .. ' ' .. member
end

local function revoke_session(id, expires)
  local member = 'session:' .. id
  local _, former = known(member)
  if former and tonumber(former) >= tonumber(expires) then
    return '0 ' .. former .. ' 0 ' .. member
  end
  return write(member, '0', expires, '0')
end

local function end_session(id, until_at_least)
  local found = redis.call('HMGET', ARGV[2] .. id, 'user', 'until')
  local expires = found[2]
  if found[1] then
    redis.call('DEL', ARGV[2] .. id)
    redis.call('ZREM', ARGV[3] .. found[1], id)
    if tonumber(until_at_least) > tonumber(expires) then expires = until_at_least end
  elseif tonumber(until_at_least) > 0 then
    expires = until_at_least
  else
    return false
  end
  return revoke_session(id, expires)
end

local function revoke_user(id, at, expires, stamp)
  local former, _, former_stamp = known('user:' .. id)
  if former and (tonumber(former) == tonumber(at) or tonumber(former_stamp) > tonumber(stamp)) then
    return
  end
  for _, session in ipairs(redis.call('ZRANGE', ARGV[3] .. id, 0, -1)) do
    local since = redis.call('HGET', ARGV[2] .. session, 'since')
    if since and tonumber(since) <= tonumber(at) then end_session(session, '0') end
  end
  write('user:' .. id, at, expires, stamp)
end
"""

# Further ARGV: session, user, jti, created, expires, access until, since. Answers the user's
# revocation, and whether the session was begun.
CREATE: Final = Script(
    _SHARED
    + """
local member = 'user:' .. ARGV[5]
local at, expires, stamp = known(member)
local row = at and (at .. ' ' .. expires .. ' ' .. stamp .. ' ' .. member)
if at and tonumber(at) >= tonumber(ARGV[10]) then return {row, 0} end
local key, index = ARGV[2] .. ARGV[4], ARGV[3] .. ARGV[5]
redis.call('HSET', key, 'user', ARGV[5], 'jti', ARGV[6], 'created', ARGV[7], 'expires', ARGV[8],
  'until', ARGV[9], 'since', ARGV[10])
expire(key, tonumber(ARGV[8]))
redis.call('ZREMRANGEBYSCORE', index, '-inf', ARGV[1])
redis.call('ZADD', index, ARGV[8], ARGV[4])
expire_with_last(index, index)
return {row or false, 1}
"""
)

# Further ARGV: session, user, jti, access until, next jti or nothing, next expiry. Answers 1, or
# 0 when the session is over, or the revocation when it ends by this.
RENEW: Final = Script(
    _SHARED
    + """
local key = ARGV[2] .. ARGV[4]
local found = redis.call('HMGET', key, 'user', 'jti', 'expires', 'until')
if found[1] ~= ARGV[5] or tonumber(found[3]) <= now then return 0 end
if found[2] ~= ARGV[6] then
  local row = end_session(ARGV[4], '0')
  tidy()
  return row
end
if tonumber(ARGV[7]) > tonumber(found[4]) then redis.call('HSET', key, 'until', ARGV[7]) end
if ARGV[8] ~= '' then
  local index = ARGV[3] .. ARGV[5]
  redis.call('HSET', key, 'jti', ARGV[8], 'expires', ARGV[9])
  expire(key, tonumber(ARGV[9]))
  redis.call('ZADD', index, ARGV[9], ARGV[4])
  expire_with_last(index, index)
end
return 1
"""
)

# Further ARGV: session, access until or 0. Answers the revocation, if there was a session.
END: Final = Script(
    _SHARED
    + """
local row = end_session(ARGV[4], ARGV[5])
if row then tidy() end
return row
"""
)

# Further ARGV: kind, id, at, expires, stamp, of each revocation.
REVOKE: Final = Script(
    _SHARED
    + """
for i = 4, #ARGV, 5 do
  if ARGV[i] == 'user' then
    revoke_user(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
  else
    end_session(ARGV[i + 1], ARGV[i + 3])
  end
end
tidy()
"""
)
