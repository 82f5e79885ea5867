from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ConflictError, NightrateError, NotFoundError, UsageError
from pipeline.entrypoints.cli.inputs import opened_input
from pipeline.entrypoints.cli.result_files import targets_of
from pipeline.entrypoints.cli.submission import parse_terms

LINE = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {}}).encode()


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\n\r\n  \n", b"\xef\xbb\xbf\n"])
def test_the_endpoint_is_the_first_requests_url(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(before + LINE + b"\n")

    with opened_input(str(path), endpoint=None) as source:
        assert source.endpoint is Endpoint.EMBEDDINGS
        assert source.path == path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no requests"),
        (b"\n\n", "no requests"),
        (b"\x7fELF\x02\x01\x00\x00 and more", "binary"),
        (b"PK\x03\x04 and more", "zip"),
        (b"hello\n", "line 1"),
        (b'\n{"url": \n', "line 2"),
        (b"[1]\n", "JSON array"),
        (b'{"custom_id": "a"}\n', "no url"),
        (b'{"url": "/v1/nope"}\n', "no endpoint"),
        (b'{"url": ["/v1/nope"]}\n', "no endpoint"),
        (b'{"url": {}}\n', "no endpoint"),
        (b"\xff\xfe{\x00", "UTF-16"),
    ],
)
def test_a_file_that_is_no_jsonl_is_refused_before_anything_starts(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)

    with pytest.raises(UsageError, match=said), opened_input(str(path), endpoint=None):
        pass


def test_a_given_endpoint_leaves_bad_lines_to_intake(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"{broken\n")

    with opened_input(str(path), endpoint="/v1/completions") as source:
        assert source.endpoint is Endpoint.COMPLETIONS
    with pytest.raises(UsageError, match="not an endpoint"), opened_input(str(path), endpoint="chat"):
        pass


def test_a_pipe_is_copied_first(tmp_path: Path) -> None:
    import os
    import threading

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(LINE + b"\n",))
    writer.start()

    with opened_input(str(pipe), endpoint=None) as source:
        assert source.path.read_bytes() == LINE + b"\n"
    writer.join()
    assert not source.path.exists()


def test_what_is_no_file_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError), opened_input(str(tmp_path / "missing"), endpoint=None):
        pass
    with pytest.raises(UsageError, match="folder"), opened_input(str(tmp_path), endpoint=None):
        pass


def test_results_go_beside_the_input_and_overwrite_nothing(tmp_path: Path) -> None:
    file = str(tmp_path / "in.jsonl")

    targets = targets_of(file, output=None, errors=None, force=False)

    assert (targets.output.name, targets.errors.name) == ("in.output.jsonl", "in.errors.jsonl")
    targets.errors.touch()
    with pytest.raises(ConflictError, match="exists"):
        targets_of(file, output=None, errors=None, force=False)
    assert targets_of(file, output=None, errors=None, force=True) == targets


def test_results_never_replace_the_input_or_one_another(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"

    for output, errors in ((file, None), (None, file), (tmp_path / "x", tmp_path / "x"), (tmp_path, None)):
        with pytest.raises(NightrateError):
            targets_of(str(file), output=output, errors=errors, force=True)
    with pytest.raises(UsageError, match="no folder"):
        targets_of(str(file), output=tmp_path / "none" / "x", errors=None, force=False)


def test_labels_are_terms_too() -> None:
    terms = parse_terms(
        tier="bulk", window=None, max_cost=None, meta=None, idempotency_key=None, labels=["team=a=b", "run=7"]
    )

    assert terms.labels == {"team": "a=b", "run": "7"}


@pytest.mark.parametrize(
    ("label", "said"),
    [("team", "--label team=search"), ("k" * 65 + "=x", "64 characters for a key"), ("a=\0", "any other")],
)
def test_a_label_that_is_none_is_refused_with_what_would_be_accepted(label: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_terms(tier="bulk", window=None, max_cost=None, meta=None, idempotency_key=None, labels=[label])

    assert refused.value.hint is not None
    assert said in refused.value.hint


def test_terms_have_the_tiers_window_unless_told_otherwise() -> None:
    terms = parse_terms(tier="urgent", window=None, max_cost="1.50", meta=["team=a", "x="], idempotency_key=None)

    assert (terms.window, terms.budget_micros, terms.metadata) == ("1h", 1_500_000, {"team": "a", "x": ""})


@pytest.mark.parametrize(
    "options",
    [
        {"tier": "best"},
        {"window": "soon"},
        {"window": "99d"},
        {"max_cost": "free"},
        {"meta": ["novalue"]},
        {"meta": ["=x"]},
        {"meta": ["a=1", "a=2"]},
        {"meta": ["k" * 65 + "=x"]},
        {"meta": ["k=" + "x" * 513]},
        {"meta": [f"k{number}=x" for number in range(17)]},
        {"meta": ["k=\udcff"]},
        {"idempotency_key": "\udcff"},
    ],
)
def test_terms_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    defaults: dict[str, object] = {
        "tier": "standard",
        "window": None,
        "max_cost": None,
        "meta": None,
        "idempotency_key": None,
    }

    with pytest.raises(UsageError):
        parse_terms(**(defaults | options))  # type: ignore[arg-type] # the very point is to pass what is wrong
