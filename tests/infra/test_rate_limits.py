from __future__ import annotations

import logging
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from infra.rate_limits import RateAsk, RateLimits
from pipeline.domain.rates import Grant, Rate
from tests.services import eventually, running_valkey

#: One a minute comes back: nothing does while a test runs.
SLOW = Rate(per_minute=1, burst=5)


@pytest.fixture
def limits(redis_url: str) -> Iterator[RateLimits]:
    opened = RateLimits(redis_url)
    yield opened
    opened.close()


@pytest.fixture
def bucket() -> str:
    return f"test:{uuid.uuid4().hex}"


def take(limits: RateLimits, bucket: str, count: int = 1, rate: Rate = SLOW) -> Grant:
    (grant,) = limits.take([RateAsk(bucket=bucket, rate=rate, count=count)]) or ()
    return grant


def test_a_bucket_gives_its_burst_and_not_one_more(limits: RateLimits, bucket: str) -> None:
    told = [take(limits, bucket) for _ in range(6)]

    assert [grant.allowed for grant in told] == [1, 1, 1, 1, 1, 0]
    assert [grant.remaining for grant in told] == [4, 3, 2, 1, 0, 0]
    assert told[0].retry_us == 0
    # What is refused takes nothing: the wait is for one request, the reset for all five.
    assert 0 < told[5].retry_us <= SLOW.interval_us
    assert 4 * SLOW.interval_us < told[5].reset_us <= 5 * SLOW.interval_us


def test_requests_that_come_together_get_what_is_left_the_first_ones_first(limits: RateLimits, bucket: str) -> None:
    assert take(limits, bucket, 3).allowed == 3
    assert take(limits, bucket, 3).allowed == 2
    assert take(limits, bucket, 3).allowed == 0


def test_looking_takes_nothing(limits: RateLimits, bucket: str) -> None:
    take(limits, bucket, 2)

    for _ in range(3):
        assert take(limits, bucket, 0).remaining == 3


def test_many_buckets_are_counted_in_one_round_trip_and_apart(limits: RateLimits, bucket: str) -> None:
    asks = [RateAsk(bucket=f"{bucket}:{number}", rate=SLOW, count=number) for number in range(8)]

    grants = limits.take(asks)

    assert grants is not None
    assert [grant.allowed for grant in grants] == [0, 1, 2, 3, 4, 5, 5, 5]


def test_a_bucket_fills_again_at_its_rate(limits: RateLimits, bucket: str) -> None:
    quick = Rate(per_minute=60_000, burst=2)
    take(limits, bucket, 2, quick)

    eventually(lambda: take(limits, bucket, 0, quick).remaining == 2)


def test_a_full_bucket_leaves_no_key_and_every_key_goes_by_itself(
    limits: RateLimits, bucket: str, redis_url: str
) -> None:
    client = redis.Redis.from_url(redis_url)
    take(limits, bucket, 0)
    assert client.keys(f"nightrate:rate:{bucket}*") == []

    take(limits, bucket, 2)

    assert 60_000 < client.pttl(f"nightrate:rate:{bucket}") <= 120_000
    client.close()


def test_a_limit_that_was_lowered_locks_nobody_out_for_longer_than_the_new_one(limits: RateLimits, bucket: str) -> None:
    take(limits, bucket, 100, Rate(per_minute=1, burst=100))

    grant = take(limits, bucket, 1, SLOW)

    assert (grant.allowed, grant.remaining) == (0, 0)
    assert grant.retry_us <= SLOW.interval_us


def test_a_redis_that_was_flushed_starts_full_buckets(limits: RateLimits, bucket: str, redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url)
    assert take(limits, bucket, 5).remaining == 0

    client.flushdb()
    client.script_flush()

    assert take(limits, bucket, 1).remaining == 4
    client.close()


def test_a_redis_that_is_killed_is_asked_again_by_one_a_second_and_heard_of_once(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr("infra.rate_limits.time.monotonic", lambda: now)
    caplog.set_level(logging.INFO, logger="infra.rate_limits")
    asked = 0
    with running_valkey(tmp_path / "home") as url:
        limits = RateLimits(url)
        assert take(limits, bucket).allowed == 1
    assert limits._client is not None
    pipeline = limits._client.pipeline

    def counted(*, transaction: bool) -> redis.client.Pipeline:
        nonlocal asked
        asked += 1
        return pipeline(transaction=transaction)

    monkeypatch.setattr(limits._client, "pipeline", counted)
    ask = [RateAsk(bucket=bucket, rate=SLOW, count=1)]

    assert [limits.take(ask) for _ in range(10)] == [None] * 10
    assert asked == 1
    now += 1.01
    assert [limits.take(ask) for _ in range(10)] == [None] * 10
    assert asked == 2
    assert [record.message for record in caplog.records] == ["rate_limits_away"]
    limits.close()


def test_a_redis_that_does_not_answer_is_not_waited_for_by_everyone(
    bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        limits = RateLimits(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        ask = [RateAsk(bucket=bucket, rate=SLOW, count=1)]
        assert limits.take(ask) is None
        # From here on nobody so much as connects.
        monkeypatch.setattr("infra.rate_limits.time.monotonic", lambda: 0.0)

        assert [limits.take(ask) for _ in range(100)] == [None] * 100

        limits.close()
    assert [record.message for record in caplog.records] == ["rate_limits_away"]


def test_a_redis_that_comes_back_counts_again(
    limits: RateLimits, bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr("infra.rate_limits.time.monotonic", lambda: now)
    caplog.set_level(logging.INFO, logger="infra.rate_limits")
    limits._note_away(OSError("gone"))
    ask = [RateAsk(bucket=bucket, rate=SLOW, count=1)]
    assert limits.take(ask) is None

    now += 1.01

    assert take(limits, bucket).allowed == 1
    assert take(limits, bucket).allowed == 1
    assert [record.message for record in caplog.records] == ["rate_limits_away", "rate_limits_back"]


def test_without_a_redis_nothing_is_ever_counted(bucket: str) -> None:
    assert RateLimits(None).take([RateAsk(bucket=bucket, rate=SLOW, count=1)]) is None
