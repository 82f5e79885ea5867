from __future__ import annotations

from typing import Any

import pytest

from workers.gate.expected import BadExpectedError, Retrieves, expected_of


@pytest.mark.parametrize(
    ("expected", "answer", "is_right"),
    [
        ("Paris", " Paris\n", True),
        ("Paris", "paris", False),
        ({"exact": "Paris", "ignore_case": True}, "paris", True),
        ({"one_of": ["Rome", "Roma"]}, "Roma", True),
        ({"one_of": ["Rome", "Roma"]}, "Milan", False),
        ({"choice": "B"}, "B", True),
        ({"choice": "B"}, "(B) the second", True),
        ({"choice": "B"}, "B. sparrow", True),
        ({"choice": "B"}, "**B**", True),
        ({"choice": "B"}, "The answer is B", True),
        ({"choice": "B"}, "Let me think. Answer: (B)", True),
        ({"choice": "B"}, "The answer is A, not B", False),
        ({"choice": "A"}, "A sparrow is a bird", False),
        ({"choice": "B"}, "Because it flies", False),
        ({"choice": "yes", "choices": ["yes", "no"]}, "yes, it is", True),
        ({"choice": "yes", "choices": ["yes", "no"]}, "nothing", False),
        ({"regex": r"\b19\d\d\b"}, "in 1912", True),
        ({"regex": r"^\d+$"}, "in 1912", False),
        ({"contains": ["red", "blue"]}, "blue and red", True),
        ({"contains": ["red", "blue"]}, "blue", False),
        ({"contains": "Paris", "ignore_case": True}, "It is PARIS.", True),
        ({"number": 42}, "It is 42.", True),
        ({"number": 42}, "6 times 7 is 42", True),
        ({"number": 42}, "42 is 6 times 7", False),
        ({"number": 1234.5}, "1,234.5 km", True),
        ({"number": -3}, "minus three is -3", True),
        ({"number": 3.14, "tolerance": 0.01}, "3.1416", True),
        ({"number": 3.14, "tolerance": 0.001}, "3.1416", False),
        ({"number": 1}, "none", False),
        ({"number": 1000}, "1e3", True),
    ],
)
def test_an_answer_is_judged_by_what_is_expected(expected: object, answer: str, *, is_right: bool) -> None:
    met = expected_of(expected)

    assert not isinstance(met, Retrieves)
    assert met.is_met(met.read(answer)) is is_right


def test_answers_that_choose_the_same_read_the_same() -> None:
    choice, number = expected_of({"choice": "A"}), expected_of({"number": 1})
    assert not isinstance(choice, Retrieves)
    assert not isinstance(number, Retrieves)

    assert choice.read("(B)") == choice.read("B. because") == "B"
    assert number.read("it is 5") == number.read("5.0")


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (5, ""),
        ({}, ""),
        ({"exact": "a", "regex": "b"}, ""),
        ({"exact": ""}, "exact"),
        ({"exact": []}, "exact"),
        ({"exact": "a", "ignore_case": 1}, "ignore_case"),
        ({"exact": "a", "tolerance": 1}, "tolerance"),
        ({"choice": "E"}, "choice"),
        ({"choice": 1}, "choice"),
        ({"choice": "A", "choices": "AB"}, "choice"),
        ({"regex": "("}, "regex"),
        ({"regex": ""}, "regex"),
        ({"number": "5"}, "number"),
        ({"number": True}, "number"),
        ({"number": 5, "tolerance": -1}, "tolerance"),
        ({"retrieves": ["a"], "nearest": 0}, "nearest"),
    ],
)
def test_an_expected_answer_written_wrongly_is_named_by_its_field(value: Any, field: str) -> None:  # noqa: ANN401 -- JSON
    with pytest.raises(BadExpectedError) as caught:
        expected_of(value)

    assert caught.value.field == field
