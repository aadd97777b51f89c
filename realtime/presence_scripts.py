"""The scripts of presence in Redis.

Of a topic there are two keys: a sorted set of the ids of its users, and a hash of what is known of
them: `u` name, `c` connections, `n` nodes and `s` state of each, `total` connections, and `tell`,
whether subscribers are told. Of each node on a topic there is a hash of its users' connections; of
each node a set of its topics; and of all nodes a sorted set of when they last gave a sign of life.
"""

from __future__ import annotations

from typing import Final

from realtime.redis_scripts import Script

# KEYS: users, about them, the node's users, the node's topics, nodes. ARGV: channel, topic, '1' or
# '0' for telling or '' where that is known, a node that has to be dead or '', seconds after which
# it is; of each user: id, connections or -1 for none, `u` and name or '', what to tell.
# Answers 0 where the node is alive after all.
TELL: Final = Script(
    """
    if ARGV[4] ~= '' then
      local seen = redis.call('ZSCORE', KEYS[5], ARGV[4])
      if seen and tonumber(seen) > tonumber(redis.call('TIME')[1]) - ARGV[5] then return 0 end
    end
    if ARGV[3] ~= '' then redis.call('HSET', KEYS[2], 'tell', ARGV[3]) end
    local tell = redis.call('HGET', KEYS[2], 'tell') == '1'
    local total = 0
    for number = 6, #ARGV, 4 do
      local user, connections = ARGV[number], tonumber(ARGV[number + 1])
      local before, news = redis.call('HGET', KEYS[3], user), false
      local change = math.max(connections, 0) - (before or 0)
      if connections >= 0 then
        redis.call('HSET', KEYS[3], user, connections)
        redis.call('HINCRBY', KEYS[2], 'c' .. user, change)
        if not before then
          redis.call('HINCRBY', KEYS[2], 'n' .. user, 1)
          news = redis.call('ZADD', KEYS[1], 0, user) == 1
          local name = ARGV[number + 2]
          if name ~= '' then redis.call('HSET', KEYS[2], 'u' .. user, string.sub(name, 2)) end
        end
      elseif before then
        redis.call('HDEL', KEYS[3], user)
        redis.call('HINCRBY', KEYS[2], 'c' .. user, change)
        if redis.call('HINCRBY', KEYS[2], 'n' .. user, -1) <= 0 then
          news = redis.call('ZREM', KEYS[1], user) == 1
          redis.call('HDEL', KEYS[2], 'c' .. user, 'n' .. user, 's' .. user, 'u' .. user)
        end
      else
        change = 0
      end
      total = total + change
      if news and tell then redis.call('PUBLISH', ARGV[1], '!' .. ARGV[number + 3]) end
    end
    redis.call('HINCRBY', KEYS[2], 'total', total)
    if redis.call('EXISTS', KEYS[3]) == 1 then
      redis.call('SADD', KEYS[4], ARGV[2])
    else
      redis.call('SREM', KEYS[4], ARGV[2])
    end
    if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('DEL', KEYS[2]) end
    return 1
    """
)

# KEYS: nodes, who clears up. ARGV: node, seconds after which one is dead, and for clearing up.
# Answers whether the node was known, and a dead one that this one is to clear up after.
BEAT: Final = Script(
    """
    local now = tonumber(redis.call('TIME')[1])
    local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
    redis.call('ZADD', KEYS[1], now, ARGV[1])
    local answer = {known and tonumber(known) > now - ARGV[2] and 1 or 0}
    local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2], 'LIMIT', 0, 1)
    if #dead > 0 and redis.call('SET', KEYS[2], ARGV[1], 'NX', 'EX', ARGV[3]) then
      answer[2] = dead[1]
    elseif #dead > 0 and redis.call('GET', KEYS[2]) == ARGV[1] then
      redis.call('EXPIRE', KEYS[2], ARGV[3])
      answer[2] = dead[1]
    end
    return answer
    """
)

# KEYS: users, about them. ARGV: how many, from where.
MEMBERS: Final = Script(
    """
    local answer = {redis.call('ZCARD', KEYS[1]), redis.call('HGET', KEYS[2], 'total')}
    if ARGV[1] == '0' then return answer end
    for _, user in ipairs(
      redis.call('ZRANGEBYLEX', KEYS[1], ARGV[2], '+', 'LIMIT', 0, ARGV[1])
    ) do
      local about = redis.call('HMGET', KEYS[2], 'u' .. user, 'c' .. user, 's' .. user)
      for _, part in ipairs({user, about[1], about[2], about[3]}) do
        answer[#answer + 1] = part
      end
    end
    return answer
    """
)

# KEYS: users, about them. ARGV: channel, user, state or '', what to tell.
SET_STATE: Final = Script(
    """
    local user = ARGV[2]
    if not redis.call('ZSCORE', KEYS[1], user) then return {} end
    local before = redis.call('HGET', KEYS[2], 's' .. user) or ''
    if before ~= ARGV[3] then
      if ARGV[3] == '' then
        redis.call('HDEL', KEYS[2], 's' .. user)
      else
        redis.call('HSET', KEYS[2], 's' .. user, ARGV[3])
      end
      if redis.call('HGET', KEYS[2], 'tell') == '1' then
        redis.call('PUBLISH', ARGV[1], '!' .. ARGV[4])
      end
    end
    return {redis.call('HGET', KEYS[2], 'u' .. user), redis.call('HGET', KEYS[2], 'c' .. user)}
    """
)
