"""Evaluation items: a JSONL file of requests in OpenAI's batch shape, with what a right answer is (docs/gate.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import EvaluationFileError, RequestRefusedError
from pipeline.domain.limits import CUSTOM_ID_CHARS_MAX, LINE_BYTES_MAX
from pipeline.domain.parameters import check_body
from workers.gate.expected import BadExpectedError, Expected, Retrieves, expected_of
from workers.gate.trial import Comparison

#: More decides nothing that this many leave open: 100,000 items see differences of a tenth of a point.
ITEMS_MAX: Final = 100_000
SLICES_MAX: Final = 200
#: Bad lines named in the error; the rest are counted.
_SHOWN_MAX: Final = 10
_KEYS: Final = frozenset({"custom_id", "method", "url", "body", "expected", "slice", "document"})
#: Stands for the model's name, which each engine knows of itself.
_MODEL: Final = "evaluated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One line: a request, and what a right answer to it is."""

    custom_id: str
    body: Mapping[str, Any]
    expected: Expected | Retrieves | None
    slice: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSet:
    """Items of one endpoint, all with expected answers or all without."""

    name: str
    endpoint: Endpoint
    comparison: Comparison
    items: tuple[Item, ...]
    #: What queries are searched among, for embeddings.
    documents: tuple[Item, ...]
    #: SHA-256 of the lines' meaning: their order and white space aside.
    digest: str


class _BadFieldError(ValueError):
    """One field of a line is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


def read_file(path: Path) -> EvaluationSet:
    """Return the evaluation set in the JSONL file at `path`.

    Raises:
        EvaluationFileError: It cannot be read, or lines are wrong: each with its line, column and field.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise EvaluationFileError(f"{path} cannot be read: {error.strerror}") from error
    return read_lines(lines, name=path.name)


def read_lines(lines: Iterable[bytes], *, name: str) -> EvaluationSet:
    """Return the evaluation set that `lines` hold; `name` is what errors and reports call it.

    Raises:
        EvaluationFileError: As `read_file`.
    """
    reader = _Reader()
    for number, line in enumerate(lines, start=1):
        reader.take(number, line)
    if reader.faults:
        shown = "; ".join(reader.faults[:_SHOWN_MAX])
        more = len(reader.faults) - _SHOWN_MAX
        raise EvaluationFileError(f"{name}: {shown}" + (f"; and {more} more" if more > 0 else ""), hint="docs/gate.md")
    return reader.result(name)


class _Reader:
    """Takes lines and remembers what the file is so far."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._items: list[Item] = []
        self._documents: list[Item] = []
        self._endpoint: Endpoint | None = None
        self._is_expecting: bool | None = None
        self._first_line_by_id: dict[str, int] = {}
        self._slices: set[str] = set()
        self._digests: list[bytes] = []
        self._wanted: list[tuple[int, str]] = []

    def take(self, number: int, line: bytes) -> None:
        """Read one line; what is wrong with it joins the faults."""
        if not line.strip():
            return
        text = ""
        try:
            _check_length(line)
            text = line.decode()
            self._row(number, json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse_constant))
        except UnicodeDecodeError as error:
            self.faults.append(f"line {number}, column {error.start + 1}: not UTF-8")
        except json.JSONDecodeError as error:
            self.faults.append(f"line {number}, column {error.colno}: not JSON: {error.msg}")
        except RecursionError:
            self.faults.append(f"line {number}, column 1: nested too deeply")
        except _BadFieldError as error:
            where = f", field {error.field}" if error.field else ""
            self.faults.append(f"line {number}, column {_column(text, error.field)}{where}: {error.message}")

    def result(self, name: str) -> EvaluationSet:
        """Return what the lines make together.

        Raises:
            EvaluationFileError: Together they make nothing that can be evaluated.
        """
        if not self._items or self._endpoint is None:
            raise EvaluationFileError(f"{name} has no items", hint="docs/gate.md")
        documents = {each.custom_id for each in self._documents}
        for number, wanted in self._wanted:
            if wanted not in documents:
                raise EvaluationFileError(
                    f"{name}: line {number}, field expected.retrieves: no document line has the custom_id '{wanted}'",
                    hint="docs/gate.md",
                )
        if self._endpoint is Endpoint.EMBEDDINGS and not documents:
            raise EvaluationFileError(
                f"{name}: embeddings are compared by what they find, and no line is a document", hint="docs/gate.md"
            )
        return EvaluationSet(
            name=name,
            endpoint=self._endpoint,
            comparison=Comparison.CORRECTNESS if self._is_expecting else Comparison.AGREEMENT,
            items=tuple(self._items),
            documents=tuple(self._documents),
            digest=hashlib.sha256(b"".join(sorted(self._digests))).hexdigest(),
        )

    def _row(self, number: int, row: object) -> None:
        if not isinstance(row, dict):
            raise _BadFieldError("", "expected an object")
        if unknown := sorted(row.keys() - _KEYS):
            raise _BadFieldError(unknown[0], "unknown; known are " + ", ".join(sorted(_KEYS)))
        custom_id = self._custom_id(number, row.get("custom_id"))
        endpoint = self._checked_endpoint(row)
        body = _body(endpoint, row.get("body"))
        expected, name = _expected(endpoint, row), _slice(row.get("slice"))
        is_document = self._is_document(endpoint, row)
        item = Item(custom_id=custom_id, body=body, expected=expected, slice=name)
        self._check_together(item, is_document=is_document)
        self._digests.append(hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest())
        if isinstance(expected, Retrieves):
            self._wanted += [(number, wanted) for wanted in expected.custom_ids]
        (self._documents if is_document else self._items).append(item)

    def _custom_id(self, number: int, custom_id: object) -> str:
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= CUSTOM_ID_CHARS_MAX:
            raise _BadFieldError("custom_id", f"expected a string of 1 to {CUSTOM_ID_CHARS_MAX} characters")
        first = self._first_line_by_id.setdefault(custom_id, number)
        if first != number:
            raise _BadFieldError("custom_id", f"line {first} has the same")
        return custom_id

    def _checked_endpoint(self, row: Mapping[str, Any]) -> Endpoint:
        if row.get("method", "POST") != "POST":
            raise _BadFieldError("method", "only POST is supported")
        try:
            endpoint = Endpoint(row.get("url", ""))
        except ValueError:
            raise _BadFieldError("url", "expected one of " + ", ".join(Endpoint)) from None
        if self._endpoint not in {None, endpoint}:
            raise _BadFieldError("url", f"earlier lines ask {self._endpoint}; a file asks one endpoint")
        self._endpoint = endpoint
        return endpoint

    def _is_document(self, endpoint: Endpoint, row: Mapping[str, Any]) -> bool:
        is_document = row.get("document", False)
        if not isinstance(is_document, bool):
            raise _BadFieldError("document", "expected true or false")
        if is_document and endpoint is not Endpoint.EMBEDDINGS:
            raise _BadFieldError("document", f"only lines for {Endpoint.EMBEDDINGS} are documents")
        if is_document and "expected" in row:
            raise _BadFieldError("expected", "a document is found, it expects nothing")
        return is_document

    def _check_together(self, item: Item, *, is_document: bool) -> None:
        if len(self._first_line_by_id) > ITEMS_MAX:
            raise _BadFieldError("", f"a file has at most {ITEMS_MAX:,} items and documents")
        if item.slice is not None:
            self._slices.add(item.slice)
            if len(self._slices) > SLICES_MAX:
                raise _BadFieldError("slice", f"a file has at most {SLICES_MAX} slices")
        if is_document:
            return
        is_expecting = item.expected is not None
        if self._is_expecting not in {None, is_expecting}:
            others = "have none" if is_expecting else "have one"
            raise _BadFieldError("expected", f"earlier items {others}: give expected answers to all items or to none")
        self._is_expecting = is_expecting


def _check_length(line: bytes) -> None:
    if len(line) > LINE_BYTES_MAX:
        raise _BadFieldError("", f"the line is longer than {LINE_BYTES_MAX:,} bytes")


def _body(endpoint: Endpoint, given: object) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise _BadFieldError("body", "expected an object")
    body: dict[str, Any] = {"model": _MODEL, **given}
    if endpoint is Endpoint.EMBEDDINGS:
        if not isinstance(body.get("input"), str | dict):
            raise _BadFieldError("body.input", "expected one string, or one image")
        body["encoding_format"] = "float"
    elif endpoint not in {Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS}:
        raise _BadFieldError("url", f"the gate compares generated text and {Endpoint.EMBEDDINGS}, not {endpoint}")
    elif body.setdefault("temperature", 0) != 0:
        raise _BadFieldError("body.temperature", "the gate compares greedy answers: leave it out, or give 0")
    try:
        check_body(endpoint, body)
    except RequestRefusedError as error:
        raise _BadFieldError(error.param or "body", error.message) from None
    return body


def _expected(endpoint: Endpoint, row: Mapping[str, Any]) -> Expected | Retrieves | None:
    if "expected" not in row:
        return None
    try:
        expected = expected_of(row["expected"])
    except BadExpectedError as error:
        raise _BadFieldError(".".join(filter(None, ("expected", error.field))), error.message) from None
    if isinstance(expected, Retrieves) != (endpoint is Endpoint.EMBEDDINGS):
        raise _BadFieldError("expected", f"'retrieves' is for {Endpoint.EMBEDDINGS}, the other kinds for text")
    return expected


def _slice(given: object) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str) or not 0 < len(given) <= CUSTOM_ID_CHARS_MAX or not given.isprintable():
        raise _BadFieldError("slice", f"expected a string of 1 to {CUSTOM_ID_CHARS_MAX} printable characters")
    return given


def _column(text: str, field: str) -> int:
    """Return where in the line the field's key stands; 1 where it is missing."""
    place = -1
    for key in field.split("."):
        place = max(place, text.find(json.dumps(key.partition("[")[0]), place + 1))
    return place + 1 if place >= 0 else 1


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _BadFieldError(key[:CUSTOM_ID_CHARS_MAX], "the key appears twice in one object")
        result[key] = value
    return result


def _refuse_constant(name: str) -> None:
    raise _BadFieldError("", f"{name} is not JSON")
