"""The Lua scripts of a service's nodes: who there is, and who is connected where."""

from __future__ import annotations

from typing import Final

from realtime.redis_scripts import Script

# KEYS: nodes, about the node, its users. ARGV: node, what it says of itself, seconds after which it
# is dead, its channel, what it sends itself. Answers how many fields its users have.
BEAT: Final = Script(
    """
    local time = redis.call('TIME')
    local now = time[1] + time[2] / 1000000
    redis.call('ZADD', KEYS[1], now, ARGV[1])
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])
    redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
    redis.call('EXPIRE', KEYS[3], ARGV[3])
    redis.call('PUBLISH', ARGV[4], ARGV[5])
    return redis.call('HLEN', KEYS[3])
    """
)

# KEYS: nodes, idempotency key. ARGV: prefix of the nodes' users, of their channels, field of the
# user, message, seconds for the key or 0, '1' to remember that nobody was there.
DIRECT: Final = Script(
    """
    if ARGV[5] ~= '0' then
      local found = redis.call('GET', KEYS[2])
      if found then return tonumber(found) end
      -- A Redis that is full refuses this, and then nothing has been sent.
      redis.call('SET', KEYS[2], 0, 'EX', ARGV[5])
    end
    local total = 0
    for _, node in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
      local connections = redis.call('HGET', ARGV[1] .. node, ARGV[3])
      -- A node that has died is known for some seconds, and hears nothing.
      if connections and redis.call('PUBLISH', ARGV[2] .. node, ARGV[4]) > 0 then
        total = total + connections
      end
    end
    if ARGV[5] ~= '0' and total > 0 then
      redis.call('SET', KEYS[2], total, 'EX', ARGV[5])
    elseif ARGV[5] ~= '0' and ARGV[6] ~= '1' then
      redis.call('DEL', KEYS[2])
    end
    return total
    """
)

# KEYS: nodes. ARGV: prefix of the nodes' users, field of the name.
USER_NAMED: Final = Script(
    """
    for _, node in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
      local user = redis.call('HGET', ARGV[1] .. node, ARGV[2])
      if user then return user end
    end
    return false
    """
)

# KEYS: nodes. ARGV: prefix of the nodes' channels, message.
ASK_ALL: Final = Script(
    """
    local asked = 0
    for _, node in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
      asked = asked + redis.call('PUBLISH', ARGV[1] .. node, ARGV[2])
    end
    return asked
    """
)

# KEYS: nodes. ARGV: prefix of what the nodes say of themselves.
DESCRIBE: Final = Script(
    """
    local answer = {}
    for _, node in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
      answer[#answer + 1] = redis.call('GET', ARGV[1] .. node)
    end
    return answer
    """
)
