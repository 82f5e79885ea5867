"""What every object store promises; each test runs against the folder and against a real S3 server."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from urllib.parse import urlsplit

import pytest

from pipeline.domain.errors import ObjectConflictError, ObjectCorruptError, ObjectMissingError, UsageError
from pipeline.ports.objects import ObjectStore, StoredObject
from storage.objects.local import LocalStore

OTHER_SHA256 = hashlib.sha256(b"something else").hexdigest()
WRITERS = 16
MEMORY_BYTES_MAX = 48 * 1024 * 1024

BAD_KEYS = [
    "",
    "/",
    "/absolute",
    "a//b",
    "a/",
    "..",
    "a/../b",
    "a/..",
    ".",
    "./a",
    "a/.hidden",
    ".tmp/x",
    "a b",
    "a\\b",
    "a\0b",
    "a\n",
    "caf\u00e9",
    "a%2e%2e",
    "a?b",
    "\u202eabc",
    "k" * 256,
    "k/" * 300 + "k",
]


def test_bytes_come_back_as_they_were_put(store: ObjectStore) -> None:
    content = os.urandom(10_000)

    stored = store.put("batches/b1/part-0.jsonl", content)

    assert stored == described("batches/b1/part-0.jsonl", content)
    assert store.head(stored.key) == stored
    assert store.read(stored.key, sha256=stored.sha256) == content
    assert fetched(store, stored.key, sha256=stored.sha256) == content


def test_a_memoryview_is_stored_like_its_bytes(store: ObjectStore) -> None:
    stored = store.put("view", memoryview(b"0123456789")[2:5])

    assert stored == described("view", b"234")
    assert store.read("view") == b"234"


def test_a_file_comes_back_as_it_was_put_and_stays_where_it_is(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3_000_001))

    stored = store.put("from/file", source)

    assert stored == described("from/file", source.read_bytes())
    assert store.read("from/file", sha256=stored.sha256) == source.read_bytes()


def test_a_stored_file_does_not_follow_later_changes_of_its_source(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"before")

    store.put("copy", source)
    with source.open("r+b") as file:
        file.write(b"AFTER!")

    assert store.read("copy") == b"before"


def test_an_empty_object_is_an_object(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "nothing").touch()

    stored = store.put("empty", b"")

    assert stored == described("empty", b"")
    assert store.put("empty", tmp_path / "nothing") == stored
    assert store.head("empty") == stored
    assert store.read("empty", sha256=stored.sha256) == b""
    assert fetched(store, "empty") == b""
    assert list(store.list("")) == ["empty"]


def test_a_source_that_is_no_file_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    for source in (tmp_path / "absent", tmp_path, tmp_path / "fifo"):
        with pytest.raises(UsageError, match="is not a file"):
            store.put("key", source)

    assert list(store.list("")) == []


def test_of_racing_writers_exactly_one_wins_and_the_others_learn_it(store: ObjectStore) -> None:
    keys = [f"race/{number}" for number in range(5)]
    barrier = Barrier(WRITERS)

    def write(writer: int) -> list[bool]:
        barrier.wait()
        return [succeeds(store, key, f"writer {writer} of {key}".encode()) for key in keys]

    with ThreadPoolExecutor(WRITERS) as pool:
        outcomes = list(pool.map(write, range(WRITERS)))

    for index, key in enumerate(keys):
        winners = [writer for writer, won in enumerate(outcomes) if won[index]]
        assert len(winners) == 1, key
        assert store.read(key) == f"writer {winners[0]} of {key}".encode()


def test_racing_writers_of_the_same_content_all_succeed(store: ObjectStore) -> None:
    barrier = Barrier(WRITERS)

    def write(_: int) -> StoredObject:
        barrier.wait()
        return store.put("deep/new/folders/same", b"the answer")

    with ThreadPoolExecutor(WRITERS) as pool:
        stored = set(pool.map(write, range(WRITERS)))

    assert stored == {described("deep/new/folders/same", b"the answer")}


def test_puts_survive_deletes_that_empty_their_folder(store: ObjectStore) -> None:
    def churn(number: int) -> None:
        for turn in range(20):
            key = f"shared/folder/{number}-{turn}"
            store.put(key, b"x")
            assert store.read(key) == b"x"
            store.delete(key)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, range(4)))

    assert list(store.list("")) == []


def test_the_same_content_again_is_a_success(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"same")
    first = store.put("again", b"same")

    assert store.put("again", b"same") == first
    assert store.put("again", tmp_path / "source") == first


def test_other_content_is_refused_and_the_object_stays(store: ObjectStore) -> None:
    store.put("kept", b"first")

    for other in (b"secon", b"", b"first and more"):
        with pytest.raises(ObjectConflictError, match="'kept'"):
            store.put("kept", other)

    assert store.read("kept") == b"first"


@pytest.mark.parametrize("key", ["missing", "folder", "folder/there/below"])
def test_a_missing_object_is_reported_by_every_reader(store: ObjectStore, key: str) -> None:
    store.put("folder/there", b"x")

    for attempt in readers(store, key):
        with pytest.raises(ObjectMissingError):
            attempt()


def test_damaged_content_is_caught_by_its_hash(store: ObjectStore, bench_damage: Callable[[str, bytes], None]) -> None:
    sha256 = store.put("damaged", b"A" * 1000).sha256
    bench_damage("damaged", b"A" * 999 + b"B")

    with pytest.raises(ObjectCorruptError):
        store.read("damaged", sha256=sha256)
    with pytest.raises(ObjectCorruptError):
        fetched(store, "damaged", sha256=sha256)

    assert store.read("damaged") == b"A" * 999 + b"B"


def test_an_object_other_than_the_expected_one_is_refused(store: ObjectStore) -> None:
    store.put("key", b"content")

    with pytest.raises(ObjectCorruptError):
        store.read("key", sha256=OTHER_SHA256)
    with pytest.raises(ObjectCorruptError):
        fetched(store, "key", sha256=OTHER_SHA256)


def test_keys_are_listed_in_lexicographic_order(store: ObjectStore) -> None:
    keys = ["a-b", "a.b", "a/b", "a/b-c", "a/b2/c", "a/bc", "a0/z", "a=", "aB/x", "ab", "b", "A", "_", "0"]
    random.Random(7).shuffle(keys)
    for key in keys:
        store.put(key, key.encode())

    assert list(store.list("")) == sorted(keys)


def test_a_prefix_is_a_raw_string(store: ObjectStore) -> None:
    for key in ("a/b/c", "a/bc", "a/bd/e", "a/c", "ab", "b/a/b"):
        store.put(key, b"x")

    assert list(store.list("a/b")) == ["a/b/c", "a/bc", "a/bd/e"]
    assert list(store.list("a/b/")) == ["a/b/c"]
    assert list(store.list("a/")) == ["a/b/c", "a/bc", "a/bd/e", "a/c"]
    assert list(store.list("a")) == ["a/b/c", "a/bc", "a/bd/e", "a/c", "ab"]
    assert list(store.list("a/bc")) == ["a/bc"]
    assert list(store.list("a/bc/")) == []
    assert list(store.list("none/such")) == []


def test_a_long_listing_is_complete(store: ObjectStore) -> None:
    keys = [f"many/{number:04d}" for number in range(1010)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b""), keys))

    assert list(store.list("many/")) == keys


def test_a_deleted_object_is_gone_and_deleting_it_again_is_fine(store: ObjectStore) -> None:
    store.put("a/b/gone", b"x")
    store.put("a/kept", b"x")

    store.delete("a/b/gone")
    store.delete("a/b/gone")
    store.delete("never/there")
    store.delete("a")

    assert list(store.list("")) == ["a/kept"]
    with pytest.raises(ObjectMissingError):
        store.head("a/b/gone")


def test_a_key_may_be_written_anew_after_its_deletion(store: ObjectStore) -> None:
    store.put("key", b"one")
    store.delete("key")

    store.put("key", b"two")

    assert store.read("key") == b"two"


def test_a_large_file_goes_in_and_out_with_bounded_memory(store: ObjectStore, large_file: Path) -> None:
    expected = file_sha256(large_file)

    tracemalloc.start()
    try:
        stored = store.put("large", large_file)
        with store.fetch("large", sha256=expected) as path:
            assert path.stat().st_size == large_file.stat().st_size
        streamed = hashlib.sha256()
        with store.open("large") as body:
            while block := body.read(1024 * 1024):
                streamed.update(block)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert stored == StoredObject(key="large", size_bytes=large_file.stat().st_size, sha256=expected)
    assert store.head("large") == stored
    assert store.put("large", large_file) == stored
    assert streamed.hexdigest() == expected
    assert peak_bytes < MEMORY_BYTES_MAX


def test_an_open_object_reads_like_a_file(store: ObjectStore) -> None:
    lines = [b'{"row": %d}\n' % number for number in range(1000)]
    store.put("lines", b"".join(lines))

    with store.open("lines") as body:
        assert body.readline() == lines[0]
        assert body.read(5) == lines[1][:5]
        assert body.read() == b"".join(lines[1:])[5:]
        assert body.read() == b""
    with store.open("lines") as body:
        assert list(body) == lines


def test_an_object_is_read_from_the_middle_on(store: ObjectStore) -> None:
    content = os.urandom(300_000)
    store.put("key", content)

    for start in (0, 1, 65_536, 299_999):
        with store.open("key", start=start) as body:
            assert body.read(3) == content[start : start + 3]
            assert body.read() == content[start + 3 :]


def test_a_link_leads_to_the_object_if_there_is_one(store: ObjectStore) -> None:
    store.put("key", b"content")

    link = store.link("key", seconds=60, filename='a "b"\\ä.jsonl')

    if link is None:
        assert isinstance(store, LocalStore)
        return
    parts = urlsplit(link)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    connection.request("GET", f"{parts.path}?{parts.query}")
    with connection.getresponse() as answer:
        assert (answer.status, answer.read()) == (200, b"content")
        assert answer.headers["Content-Disposition"] == 'attachment; filename="a _b__?.jsonl"'
    connection.close()


def test_a_reader_may_stop_early(store: ObjectStore) -> None:
    store.put("key", os.urandom(5_000_000))

    for _ in range(3):
        with store.open("key") as body:
            assert len(body.read(10)) == 10

    assert store.head("key").size_bytes == 5_000_000


def test_an_error_of_the_borrower_passes_through(store: ObjectStore) -> None:
    store.put("key", b"x")

    with pytest.raises(BlockingIOError, match="mine"), store.open("key"):
        raise BlockingIOError("mine")
    with pytest.raises(BlockingIOError, match="mine"), store.fetch("key"):
        raise BlockingIOError("mine")


def test_a_lent_file_is_not_writable(store: ObjectStore) -> None:
    store.put("key", b"x")

    with store.fetch("key") as path:
        assert path.stat().st_mode & 0o222 == 0


def test_many_threads_read_one_object(store: ObjectStore) -> None:
    content = os.urandom(1_000_000)
    sha256 = store.put("popular", content).sha256

    def read(number: int) -> bool:
        if number % 2:
            return fetched(store, "popular", sha256=sha256) == content
        return store.read("popular", sha256=sha256) == content

    with ThreadPoolExecutor(WRITERS) as pool:
        assert all(pool.map(read, range(48)))


@pytest.mark.parametrize("key", BAD_KEYS, ids=lambda key: ascii(key[:20]))
def test_a_bad_key_is_refused_everywhere(store: ObjectStore, key: str) -> None:
    attempts: list[Callable[[], object]] = [lambda: store.put(key, b"x"), lambda: store.delete(key)]

    for attempt in [*attempts, *readers(store, key)]:
        with pytest.raises(UsageError, match="segments of A-Z"):
            attempt()


@pytest.mark.parametrize(
    "prefix", ["/", "..", "a/../", "a//", "../", "a/.", "a b", "\0", "k" * 600], ids=lambda key: ascii(key[:20])
)
def test_a_prefix_of_no_key_is_refused(store: ObjectStore, prefix: str) -> None:
    with pytest.raises(UsageError, match="segments of A-Z"):
        store.list(prefix)


def test_the_longest_key_is_stored(store: ObjectStore) -> None:
    key = f"{'k' * 255}/{'k' * 255}/k"[:512].rstrip("/")
    assert len(key) > 500

    store.put(key, b"x")

    assert list(store.list("k" * 255)) == [key]


@pytest.fixture
def bench_damage(request: pytest.FixtureRequest) -> Callable[[str, bytes], None]:
    damage: Callable[[str, bytes], None] = request.getfixturevalue("bench").damage
    return damage


def described(key: str, content: bytes) -> StoredObject:
    return StoredObject(key=key, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetched(store: ObjectStore, key: str, *, sha256: str | None = None) -> bytes:
    with store.fetch(key, sha256=sha256) as path:
        return path.read_bytes()


def opened(store: ObjectStore, key: str) -> bytes:
    with store.open(key) as body:
        return body.read()


def readers(store: ObjectStore, key: str) -> list[Callable[[], object]]:
    return [
        lambda: store.head(key),
        lambda: store.read(key),
        lambda: opened(store, key),
        lambda: fetched(store, key),
    ]


def succeeds(store: ObjectStore, key: str, content: bytes) -> bool:
    try:
        store.put(key, content)
    except ObjectConflictError:
        return False
    return True
