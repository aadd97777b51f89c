"""Histories of topics in Redis: a stream each, in which an entry's id is its offset, and a hash.

One script accepts a publication: it looks for its key, gives it an offset, keeps it, trims by
number and age, and publishes. What is not touched for `KEEP` seconds goes by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from secrets import token_hex
from typing import Any, Final

from twisted.internet.defer import Deferred

from realtime.interfaces import KEY_TTL
from realtime.model import HistoryPage, Namespace, Position, Publication
from realtime.redis_client import Redis
from realtime.redis_keys import Keys, decode_rest, encode_message, encode_rest
from realtime.redis_ring import Ring
from realtime.redis_scripts import Script

# Seconds for which Redis keeps what has no age limit, and the epoch of a topic that has nothing.
KEEP: Final = 30 * 86400
KEEP_EMPTY: Final = 3600
# Bytes of publications in one answer of Redis, beyond which it ends.
PAGE_BYTES: Final = 512 * 1024

# KEYS: hash, stream, idempotency key. ARGV: channel, publication, size, seconds to keep, oldest
# time kept or -1, epoch if there is none, seconds for the key or 0, time.
_PUBLISH: Final = Script(
    """
    if ARGV[7] ~= '0' then
      local found = redis.call('GET', KEYS[3])
      if found then return 'again ' .. found end
    end
    local position = '0 '
    if tonumber(ARGV[3]) > 0 then
      local epoch = redis.call('HGET', KEYS[1], 'epoch')
      if not epoch then
        epoch = ARGV[6]
        redis.call('DEL', KEYS[2])
        redis.call('HSET', KEYS[1], 'epoch', epoch)
      end
      local offset = string.format('%.0f', redis.call('HINCRBY', KEYS[1], 'top', 1))
      local function add()
        return redis.pcall(
          'XADD', KEYS[2], 'MAXLEN', '=', ARGV[3], offset .. '-0', 't', ARGV[8], 'p', ARGV[2]
        )
      end
      if add().err then
        -- Another program has written there: the history begins anew.
        epoch, offset = ARGV[6], '1'
        redis.call('DEL', KEYS[2])
        redis.call('HSET', KEYS[1], 'epoch', epoch, 'top', 1)
        local added = add()
        if added.err then return added end
      end
      if ARGV[5] ~= '-1' then
        -- More than one each time, so that a backlog shrinks.
        local some = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 4)
        for _, entry in ipairs(some) do
          if tonumber(entry[2][2]) > tonumber(ARGV[5]) then break end
          redis.call('XDEL', KEYS[2], entry[1])
        end
      end
      redis.call('EXPIRE', KEYS[1], ARGV[4] + 86400)
      redis.call('EXPIRE', KEYS[2], ARGV[4])
      position = offset .. ' ' .. epoch
    end
    -- What is told must be known by its key: a Redis that is full takes the one, not the other.
    if ARGV[7] ~= '0' then redis.call('SET', KEYS[3], position, 'EX', ARGV[7]) end
    redis.call('PUBLISH', ARGV[1], position .. ' ' .. ARGV[2])
    return position
    """
)

# KEYS: hash, stream. ARGV: epoch if there is none, seconds to keep that, epoch and offset of the
# position or '' and 0, limit, '1' for newest first, time that all must be younger than, size of
# the history, bytes.
_READ: Final = Script(
    """
    local epoch = redis.call('HGET', KEYS[1], 'epoch')
    if not epoch then
      epoch = ARGV[1]
      redis.call('DEL', KEYS[2])
      redis.call('HSET', KEYS[1], 'epoch', epoch, 'top', 0)
      redis.call('EXPIRE', KEYS[1], ARGV[2])
    end
    local top = tonumber(redis.call('HGET', KEYS[1], 'top') or 0)
    local limit, reverse, oldest = tonumber(ARGV[5]), ARGV[6] == '1', tonumber(ARGV[7])
    local first, room = math.max(top - ARGV[8] + 1, 1), tonumber(ARGV[9])
    local function id(offset) return string.format('%.0f-0', offset) end
    local answer = {epoch, string.format('%.0f', top), 1}
    if ARGV[3] ~= '' then
      local since = tonumber(ARGV[4])
      local gone = ARGV[3] ~= epoch or since < 0 or since > top
      if not gone and since < top then
        local after = redis.call('XRANGE', KEYS[2], id(since + 1), id(since + 1))
        gone = since + 1 < first or #after == 0 or tonumber(after[1][2][2]) <= oldest
      end
      if gone then
        answer[3] = 0
        return answer
      end
      first = since + 1
    end
    local last = top
    while limit > 0 and first <= last do
      local some
      if reverse then
        some = redis.call('XREVRANGE', KEYS[2], id(last), id(first), 'COUNT', math.min(limit, 100))
      else
        some = redis.call('XRANGE', KEYS[2], id(first), id(last), 'COUNT', math.min(limit, 100))
      end
      if #some == 0 then break end
      for _, entry in ipairs(some) do
        local offset, rest = string.match(entry[1], '^%d+'), entry[2][4]
        if tonumber(entry[2][2]) > oldest then
          room = room - #rest
          if room < 0 and #answer > 3 then return answer end
          answer[#answer + 1] = offset
          answer[#answer + 1] = rest
          limit = limit - 1
        elseif reverse then
          return answer
        end
        if reverse then last = tonumber(offset) - 1 else first = tonumber(offset) + 1 end
      end
    end
    return answer
    """
)

_TOPS: Final = Script(
    """
    local answer = {}
    for number, key in ipairs(KEYS) do
      answer[number] = redis.call('HMGET', key, 'epoch', 'top')
    end
    return answer
    """
)

# KEYS: hash, stream. ARGV: epoch and offset that somebody has seen, another epoch.
_RESTART: Final = Script(
    """
    local found = redis.call('HMGET', KEYS[1], 'epoch', 'top')
    if found[1] == ARGV[1] and tonumber(found[2] or 0) < tonumber(ARGV[2]) then
      redis.call('DEL', KEYS[2])
      redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'top', 0)
    end
    """
)


class RedisHistories:
    """Publishes, keeps and reads. `seconds` is Unix time.

    What fails does so with `Unavailable` or `RedisRefused`.
    """

    def __init__(self, ring: Ring, keys: Keys, seconds: Callable[[], float]) -> None:
        self._ring = ring
        self._keys = keys
        self._seconds = seconds

    def publish(
        self, publication: Publication, namespace: Namespace, key: str | None
    ) -> Deferred[tuple[Position | None, bool]]:
        """See `IBroker.publish`; answers, too, whether the publication is no repetition."""
        topic = publication.topic
        redis = self._ring.of(topic)
        channel = self._keys.channel(topic)
        if not namespace.history_size and key is None:
            return redis.command("PUBLISH", channel, encode_message(publication)).addCallback(_new)
        now, ttl = self._seconds(), namespace.history_ttl
        scope = "" if key is None else f"{topic}\0{publication.from_user}\0{key}"
        return redis.run(
            _PUBLISH,
            (*self._names(topic), self._keys.key("key", scope)),
            (
                channel,
                encode_rest(publication),
                namespace.history_size,
                int(ttl) + 1 if ttl else KEEP,
                repr(now - ttl) if ttl else "-1",
                token_hex(4),
                0 if key is None else KEY_TTL,
                repr(now),
            ),
        ).addCallback(_taken)

    async def read(
        self,
        topic: str,
        namespace: Namespace,
        *,
        since: Position | None,
        limit: int | None,
        reverse: bool = False,
    ) -> HistoryPage | None:
        """As `IBroker.history`; a page ends, too, when it has some hundred kilobytes."""
        ttl = namespace.history_ttl
        answer = await self._ring.of(topic).run(
            _READ,
            self._names(topic),
            (
                token_hex(4),
                KEEP_EMPTY,
                "" if since is None else since.epoch or "-",
                0 if since is None else since.offset,
                1_000_000_000 if limit is None else limit,
                "1" if reverse else "0",
                repr(self._seconds() - ttl) if ttl else "-1",
                namespace.history_size,
                PAGE_BYTES,
            ),
        )
        if not answer[2]:
            return None
        epoch = answer[0].decode()
        found = tuple(
            decode_rest(topic, Position(int(offset), epoch), rest)
            for offset, rest in zip(answer[3::2], answer[4::2], strict=True)
        )
        return HistoryPage(found, Position(int(answer[1]), epoch))

    def remove(self, topic: str) -> Deferred[None]:
        """See `IBroker.remove_history`."""
        return self._ring.of(topic).command("DEL", *self._names(topic)).addCallback(_none)

    async def tops(self, redis: Redis, topics: Sequence[str]) -> list[Position | None]:
        """The newest positions of topics that are all on one server; None where none is known."""
        answer = await redis.run(_TOPS, [self._names(topic)[0] for topic in topics])
        return [
            None if epoch is None else Position(int(top or 0), epoch.decode())
            for epoch, top in answer
        ]

    async def restart(self, topic: str, position: Position) -> None:
        """Begin another epoch where Redis has gone back behind a position of this one."""
        args = (position.epoch, position.offset, token_hex(4))
        await self._ring.of(topic).run(_RESTART, self._names(topic), args)

    def _names(self, topic: str) -> tuple[bytes, bytes]:
        return self._keys.key("topic", topic), self._keys.key("stream", topic)


def _none(_: Any) -> None:
    return None


def _new(_: Any) -> tuple[None, bool]:
    return None, True


def _taken(answer: bytes) -> tuple[Position | None, bool]:
    is_new = not answer.startswith(b"again ")
    offset, epoch = (answer if is_new else answer[6:]).split(b" ", 1)
    return Position(int(offset), epoch.decode()) if epoch else None, is_new
