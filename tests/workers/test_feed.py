from __future__ import annotations

from collections.abc import Callable, Collection

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ObjectMissingError, StoreUnavailableError
from pipeline.domain.ids import DEFAULT_TENANT, BatchId, PackId, WorkerId
from pipeline.ports.packs import LeasedSlice, PackLease
from tests.services import eventually
from workers.feed import Block, Closed, Feed, Opened

PART = LeasedSlice(
    tenant_id=DEFAULT_TENANT,
    batch_id=BatchId("batch_1"),
    shard_id=1,
    shard_no=0,
    object_key="shard",
    sha256="",
    ranges=((0, 1),),
)


def lease(number: int, *, parts: int = 1, has_failed: bool = False) -> PackLease:
    return PackLease(
        pack_id=PackId(f"pck_{number}"),
        lease_token=1,
        model="echo",
        variant="echo",
        endpoint=Endpoint.CHAT_COMPLETIONS,
        slices=(PART,) * parts,
        has_failed=has_failed,
    )


class Packs:
    """Leases what it is given, raising what is an error."""

    def __init__(self, *leases: PackLease | Exception) -> None:
        self.leases = list(leases)
        self.asked = 0

    def lease(
        self,
        worker_id: WorkerId,
        *,
        pool: str,
        variants: Collection[str],
        in_company: bool = False,
        warm: Collection[str] = (),
    ) -> PackLease | None:
        del worker_id, pool, variants, warm
        self.asked += 1
        if in_company and self.leases and isinstance(first := self.leases[0], PackLease) and first.has_failed:
            return None
        found = self.leases.pop(0) if self.leases else None
        if isinstance(found, Exception):
            raise found
        return found


class Shelf:
    """An object store with one object."""

    def __init__(self, read: Callable[[], bytes] = lambda: b"content") -> None:
        self._read = read

    def read(self, key: str, *, sha256: str | None = None) -> bytes:
        del key, sha256
        return self._read()


def make(packs: Packs, shelf: Shelf | None = None, *, poll_seconds: float = 0.01) -> Feed:
    feed = Feed(
        WorkerId("wrk_1"),
        packs,  # type: ignore[arg-type] # the feed leases and does nothing else
        shelf or Shelf(),  # type: ignore[arg-type] # and reads
        pool="local",
        variants=lambda: ("echo",),
        warm=list,
        on_lease=lambda *_: None,
        uptime_us=lambda: 0,
        poll_seconds=poll_seconds,
    )
    feed.start()
    return feed


def missing() -> bytes:
    raise ObjectMissingError("gone")


def away() -> bytes:
    raise StoreUnavailableError("away")


def broken() -> bytes:
    raise RuntimeError("what nobody expects")


def test_a_pack_comes_opened_then_block_by_block_then_closed() -> None:
    feed = make(Packs(first := lease(1, parts=3)))

    assert [feed.take(10) for _ in range(5)] == [Opened(first, 0), *[Block(PART, b"content")] * 3, Closed()]
    feed.close()


def test_at_most_two_packs_are_held_at_a_time() -> None:
    packs = Packs(*(lease(number, parts=0) for number in range(4)))
    feed = make(packs)
    assert [type(feed.take(10)) for _ in range(4)] == [Opened, Closed, Opened, Closed]
    assert packs.asked == 2

    feed.pack_ended()

    assert isinstance(feed.take(10), Opened)
    feed.close()


def test_a_pack_that_has_failed_before_is_held_alone() -> None:
    packs = Packs(lease(1, parts=0), lease(2, parts=0, has_failed=True), lease(3, parts=0))
    feed = make(packs)
    assert [type(feed.take(10)) for _ in range(2)] == [Opened, Closed]
    eventually(lambda: packs.asked > 2)
    assert feed.is_empty(), "it is not leased beside another"

    feed.pack_ended()
    assert [type(feed.take(10)) for _ in range(2)] == [Opened, Closed]
    asked = packs.asked
    feed.wake()
    assert feed.take(0.1) is None
    assert packs.asked == asked, "and nothing is leased beside it"

    feed.pack_ended()
    assert isinstance(feed.take(10), Opened)
    feed.close()


@pytest.mark.parametrize(
    ("read", "closed"),
    [
        (missing, Closed("object_missing: gone", is_shard_lost=True)),
        (away, Closed("store_unavailable: away")),
        (broken, Closed("RuntimeError: what nobody expects")),
    ],
)
def test_a_shard_that_cannot_be_read_closes_its_pack_with_the_reason(read: Callable[[], bytes], closed: Closed) -> None:
    feed = make(Packs(lease(1)), Shelf(read))

    assert isinstance(feed.take(10), Opened)
    assert feed.take(10) == closed
    feed.close()


def test_errors_in_leasing_do_not_end_the_feed() -> None:
    feed = make(Packs(StoreUnavailableError(), RuntimeError("what nobody expects"), lease(1)))

    assert isinstance(feed.take(10), Opened)
    feed.close()


def test_after_the_object_store_failed_the_next_lease_waits_longer_each_time() -> None:
    feed = make(Packs())
    rests: list[float] = []

    def note(timeout: float | None = None) -> bool:
        assert timeout is not None
        rests.append(timeout)
        return False

    feed._stopped.wait = note  # type: ignore[method-assign] # it notes and does not wait

    for _ in range(3):
        feed.pack_ended(is_store_failing=True)
    feed._rest()
    longest = rests[-1]
    feed.pack_ended()
    noted = len(rests)
    feed._rest()

    assert longest == 0.08
    assert len(rests) == noted
    feed.close()


def test_it_stops_at_once_though_it_polls_rarely_and_though_nobody_takes() -> None:
    idle = make(Packs(), poll_seconds=600.0)
    full = make(Packs(*(lease(number, parts=0) for number in range(2))), poll_seconds=600.0)
    eventually(full._queue.full)

    for feed in (idle, full):
        feed.close()
        assert feed.is_stopped()
        assert feed.is_empty()
