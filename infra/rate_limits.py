"""Rates counted in Redis, so that all processes of the API count together.

One script a bucket, atomic, on Redis's own clock; a bucket that is full again needs no key, so keys go by themselves.
While Redis is away nobody waits for it: it is asked again once a second, by one request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipeline.domain.rates import Grant, Rate

_LOG = logging.getLogger(__name__)

_KEY_PREFIX: Final = "nightrate:rate:"
#: A request waits this long for Redis, twice at most: to connect and to be answered.
_ANSWER_SECONDS: Final = 0.25
_ASK_AGAIN_SECONDS: Final = 1.0

#: A bucket is one number: when it will be full again, in microseconds; it says everything (GCRA). Sent whole each time,
#: for Redis knows it by its hash from the first time on, and a server that forgot it needs no second try.
_SCRIPT: Final = """
local interval, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local full_at = tonumber(redis.call('GET', KEYS[1]) or now)
-- Never further off than the burst goes: a limit that was lowered, or a clock that was put back, locks nobody out.
full_at = math.min(math.max(full_at, now), now + burst * interval)
local room = math.floor((now + burst * interval - full_at) / interval)
local allowed = math.min(wanted, room)
if allowed > 0 then
    full_at = full_at + allowed * interval
    redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
end
return {allowed, room - allowed, full_at - now, math.max(0, full_at - now - (burst - 1) * interval)}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateAsk:
    """Requests of one bucket that came together."""

    bucket: str
    rate: Rate
    #: How many; 0 looks and takes nothing.
    count: int


class RateLimits:
    """Buckets in Redis. Safe to share between threads."""

    def __init__(self, redis_url: str | None) -> None:
        """Connect lazily; None is a Redis that is always away."""
        self._client = None if redis_url is None else _client(redis_url)
        self._lock = threading.Lock()
        self._ask_again_at = float("-inf")
        self._is_away = False

    def take(self, asks: Sequence[RateAsk]) -> Sequence[Grant] | None:
        """Take from all these buckets in one round trip; None while Redis is away."""
        if self._client is None or not self._may_ask():
            return None
        pipeline = self._client.pipeline(transaction=False)
        for ask in asks:
            rate = ask.rate
            pipeline.eval(_SCRIPT, 1, _KEY_PREFIX + ask.bucket, rate.interval_us, rate.burst, ask.count)
        try:
            answers = pipeline.execute()
        except (redis.RedisError, OSError) as error:
            self._note_away(error)
            return None
        self._note_back()
        return [
            Grant(allowed=allowed, remaining=remaining, reset_us=reset_us, retry_us=retry_us)
            for allowed, remaining, reset_us, retry_us in answers
        ]

    def close(self) -> None:
        """Give the connections back."""
        if self._client is not None:
            self._client.close()

    def _may_ask(self) -> bool:
        if not self._is_away:
            return True
        with self._lock:
            if time.monotonic() < self._ask_again_at:
                return False
            # Whoever comes meanwhile does not wait for the answer.
            self._ask_again_at = time.monotonic() + _ASK_AGAIN_SECONDS
            return True

    def _note_away(self, error: Exception) -> None:
        with self._lock:
            self._ask_again_at = time.monotonic() + _ASK_AGAIN_SECONDS
            was_away, self._is_away = self._is_away, True
        if not was_away:
            _LOG.warning("rate_limits_away", extra={"reason": str(error)})

    def _note_back(self) -> None:
        with self._lock:
            was_away, self._is_away = self._is_away, False
        if was_away:
            _LOG.info("rate_limits_back")


def _client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(
        redis_url,
        socket_timeout=_ANSWER_SECONDS,
        socket_connect_timeout=_ANSWER_SECONDS,
        # The next request is the next try.
        retry=Retry(NoBackoff(), 0),
    )
