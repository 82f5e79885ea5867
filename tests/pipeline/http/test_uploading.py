"""Forms as they stream in: however they are cut, whatever is in them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.entrypoints.http.errors import ApiError
from pipeline.entrypoints.http.uploading import Upload, receive_upload
from tests.pipeline.http.served import form

BOUNDARY = "bound-4f1c"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"

#: What looks like the end of a part and is none.
almost = st.sampled_from(
    [b"\r\n", b"--", b"\r\n--bound", b"\r\n--bound-4f1", b"\r", b"\n", b"--bound-4f1c", b"\x00\xff"]
)
contents = st.lists(st.one_of(almost, st.binary(max_size=40)), max_size=12).map(b"".join)
names = st.text(st.characters(categories=["L", "Nd"]), min_size=1, max_size=10)
values = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
fields_of_forms = st.dictionaries(names.filter(lambda name: name != "file"), values, max_size=4)


def receive(chunks: Sequence[bytes], content_type: str = CONTENT_TYPE) -> tuple[Upload, bytes]:
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        upload = asyncio.run(receive_upload(content_type, body(), path, bytes_max=10**9))
        return upload, path.read_bytes()


def cut(body: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({min(place, len(body)) for place in cuts})
    return [body[low:high] for low, high in zip([0, *places], [*places, len(body)], strict=True)]


@settings(deadline=None, max_examples=150)
@given(contents, fields_of_forms, st.lists(st.integers(0, 600), max_size=30))
@example(b"\r\n--bound-4f1", {"purpose": "batch"}, list(range(600)))
def test_however_a_form_is_cut_it_is_the_same_upload(content: bytes, fields: dict[str, str], cuts: list[int]) -> None:
    if b"\r\n--bound-4f1c" in b"\r\n" + content:
        return
    body, _ = form(fields, filename="in.jsonl", content=content)

    upload, stored = receive(cut(body, cuts))

    assert stored == content
    assert (upload.filename, upload.size_bytes, upload.fields) == ("in.jsonl", len(content), fields)


@settings(deadline=None, max_examples=100)
@given(contents, st.integers(0, 400))
def test_a_form_that_breaks_off_is_no_upload(content: bytes, kept: int) -> None:
    body, _ = form({"purpose": "batch"}, filename="in.jsonl", content=content.replace(b"bound", b""))
    whole = len(body) - len(b"\r\n")

    with pytest.raises(ApiError) as caught:
        receive([body[: min(kept, whole - 1)]])
    assert caught.value.status == 400


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 20), contents), min_size=1, max_size=4))
def test_a_form_that_was_damaged_is_refused_or_is_another_one(changes: list[tuple[int, int, bytes]]) -> None:
    body, _ = form({"purpose": "batch"}, filename="in.jsonl", content=b"abc\n")
    for start, length, instead in changes:
        body = body[:start] + instead + body[start + length :]

    def outcome() -> int:
        try:
            upload, stored = receive([body])
        except ApiError as error:
            return error.status
        return 200 if upload.size_bytes == len(stored) else 500

    assert outcome() in {200, 400}


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "text/plain; boundary=x",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=x",
        f"multipart/form-data; boundary={'x' * 257}",
        "multipart/form-data; bound\x00ary=x",
    ],
)
def test_what_is_no_form_is_refused_by_its_type(content_type: str) -> None:
    with pytest.raises(ApiError) as caught:
        receive([b"--x--\r\n"], content_type)
    assert caught.value.status == 415


def part(headers: bytes, content: bytes = b"x") -> bytes:
    return b"--bound-4f1c\r\n" + headers + b"\r\n\r\n" + content + b"\r\n"


NAMED = b'Content-Disposition: form-data; name="a"'
END = b"--bound-4f1c--\r\n"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "broke off"),
        (b"no form at all", "no multipart form"),
        (part(b"X: " + b"y" * 9000) + END, "header size"),
        (part(b"x" * 9000 + b": y") + END, "header size"),
        (part(b"\r\n".join(b"X-%d: y" % n for n in range(17))) + END, "header count"),
        (part(b"X: y") + END, "no name"),
        (part(b"Content-Disposition: form-data") + END, "no name"),
        (part(NAMED) + part(NAMED) + END, "'a' twice"),
        (b"".join(part(NAMED.replace(b'"a"', b'"a%d"' % n)) for n in range(33)) + END, "too many fields"),
        (part(NAMED, b"x" * 16_385) + END, "too long"),
        (part(NAMED, b"\xff") + END, "not UTF-8"),
        (part(NAMED, b"a\x00b") + END, "NUL"),
        (part(NAMED.replace(b'"a"', b'"\xff"')) + END, "not UTF-8"),
        (part(b'Content-Disposition: form-data; name="file"; filename="x"') * 2 + END, "more than one file"),
    ],
)
def test_forms_that_nobody_sends_are_refused_in_words(body: bytes, said: str) -> None:
    for chunks in ([body], [body[n : n + 1] for n in range(len(body))]):
        with pytest.raises(ApiError) as caught:
            receive(chunks)
        assert (caught.value.status, said in caught.value.message) == (400, True), caught.value.message


def test_a_field_may_be_as_long_as_the_limit_and_there_may_be_as_many() -> None:
    body = b"".join(part(NAMED.replace(b'"a"', b'"a%d"' % n), b"x" * 16_384) for n in range(32)) + END

    assert len(receive([body])[0].fields) == 32


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("in.jsonl", "in.jsonl"),
        ("../../etc/passwd", "passwd"),
        ("C:\\\\data\\\\in.jsonl", "in.jsonl"),
        ("folder/", "file"),
        ("", "file"),
        ("a\tb.jsonl", "a_b.jsonl"),
        ("ü" * 300 + ".jsonl", "ü" * 249 + ".jsonl"),
    ],
)
def test_a_filename_is_a_name_and_no_path(written: str, shown: str) -> None:
    body, _ = form({}, filename=written, content=b"x")

    assert receive([body])[0].filename == shown


def test_a_form_without_a_file_has_none() -> None:
    upload, stored = receive([form({"purpose": "batch"}, filename=None)[0]])

    assert (upload.filename, stored) == (None, b"")
