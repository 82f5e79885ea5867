from __future__ import annotations

import subprocess
import sys
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.endpoints import Endpoint
from pipeline.submit import prefixes
from pipeline.submit.prefixes import LEVELS_MAX, Levels, levels_of

ROLES = ("system", "user", "assistant")
#: Of the first 64 KiB.
PLACES = (
    *(256, 512, 768),
    *(
        octave + step
        for octave, width in ((1024, 256), (2048, 512), (4096, 1024), (8192, 2048), (16384, 4096), (32768, 8192))
        for step in range(0, octave, width)
    ),
    65536,
)

texts = st.builds(
    lambda head, letter, count, tail: head + letter * count + tail,
    st.sampled_from(["", "a", "é"]),
    st.sampled_from("aé"),
    st.one_of(st.integers(0, 150), st.integers(0, 5000)),
    st.sampled_from(["", "b"]),
)
conversations = st.lists(st.tuples(st.sampled_from(ROLES), texts), min_size=1, max_size=6)


def body_of(conversation: list[tuple[str, Any]]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in conversation]}


def chat_levels(conversation: list[tuple[str, Any]]) -> Levels:
    first, further = levels_of(Endpoint.CHAT_COMPLETIONS)(body_of(conversation))
    return first, tuple(further)


def expected(conversation: list[tuple[str, str]]) -> Levels:
    """Return what the levels are defined as, each read from the prompt's beginning."""
    prompt, ends = b"", []
    for role, text in conversation:
        prompt += f"\0{role}\0{text}".encode()
        ends.append(len(prompt))
    head = min(ends[0], len(f"\0{conversation[0][0]}\0") + 64)
    told = [head]
    for place in sorted({*PLACES, *ends[:-1]}):
        if place <= len(prompt) and (place in PLACES or place - told[-1] >= 64):
            told.append(place)
    if len(prompt) - told[-1] >= 256:
        told.append(len(prompt))
    first, *further = (crc32(prompt[:place]) for place in told)
    return first, tuple(further)


@given(st.lists(conversations, min_size=1, max_size=8))
def test_levels_are_check_sums_of_longer_and_longer_beginnings_of_the_whole_prompt(
    given: list[list[tuple[str, str]]],
) -> None:
    levels = levels_of(Endpoint.CHAT_COMPLETIONS)

    for conversation in given * 2:  # once new, once known
        first, further = levels(body_of(conversation))
        assert (first, tuple(further)) == expected(conversation)


def test_levels_by_bytes_stand_a_quarter_of_an_octave_apart_and_256_bytes_at_least() -> None:
    assert prefixes._PLACES[: len(PLACES)] == PLACES


def test_a_conversation_shares_all_it_was_before_its_next_turn() -> None:
    before = [("system", "s" * 100), ("user", "u" * 3000)]
    after = [*before, ("assistant", "a" * 100), ("user", "v" * 100)]

    first, further = chat_levels(before)

    assert chat_levels(after)[0] == first
    assert len(further) == 10
    assert tuple(chat_levels(after)[1])[: len(further)] == further


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("user", "x" * 90)], [("system", "x" * 90)]),
        ([("user", "x"), ("user", "y" * 300)], [("user", "x"), ("assistant", "y" * 300)]),
        ([("user", "x" * 150), ("user", "y" * 90)], [("user", "x" * 150 + "y" * 90)]),
        ([("system", "s" * 90), ("user", "x" * 200)], [("system", "s" * 90), ("user", "y" * 200)]),
    ],
)
def test_prompts_that_differ_in_a_role_a_boundary_or_a_later_message_differ_in_a_level(
    one: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    assert chat_levels(one) != chat_levels(other)


def test_parts_of_text_are_the_text_they_make() -> None:
    parts = [{"type": "text", "text": "x" * 40}, {"type": "text", "text": "y" * 40}]
    levels = levels_of(Endpoint.CHAT_COMPLETIONS)

    for conversation in ([("user", parts)], [("system", parts), ("user", parts)]):
        plain = [(role, "x" * 40 + "y" * 40) for role, _ in conversation]
        assert levels(body_of(conversation)) == levels(body_of(plain)) == levels(body_of(conversation))


def test_levels_do_not_depend_on_what_was_seen_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "_KNOWN_MAX", 3)
    given = [
        [("system", text), *rest]
        for text in ("x" * 2000, "a", "b", "c", "é" * 1024)
        for rest in ([], [("user", "?" * 400)])
    ]
    levels = levels_of(Endpoint.CHAT_COMPLETIONS)

    found = [levels(body_of(each)) for each in given * 3]
    assert [(first, tuple(further)) for first, further in found] == [chat_levels(each) for each in given] * 3
    assert len({(first, tuple(further)) for first, further in found}) == len(given)


@pytest.mark.parametrize("size", [0, 1, 64, 65, 256, 257, 600, 2303, 2304])
def test_a_completions_prompt_is_one_text(size: int) -> None:
    prompt = "p" * size

    first, further = levels_of(Endpoint.COMPLETIONS)({"prompt": prompt})

    assert first == crc32(prompt[:64].encode())
    wanted = [place for place in PLACES if place <= size]
    wanted += [size] if size == 2304 else []  # as far behind the last level as two ever are apart
    assert list(further) == [crc32(prompt[:place].encode()) for place in wanted]
    assert levels_of(Endpoint.COMPLETIONS)({"prompt": [prompt]}) == (first, further)


def test_an_encoder_shares_nothing() -> None:
    assert levels_of(Endpoint.EMBEDDINGS)({"input": "x" * 100}) == (0, ())


def test_a_conversation_without_end_has_no_levels_without_end() -> None:
    _, further = chat_levels([("user", "x" * 70)] * (LEVELS_MAX + 500))

    assert len(further) == LEVELS_MAX


def test_levels_are_the_same_in_every_process() -> None:
    program = (
        "from pipeline.submit.prefixes import levels_of\n"
        "from pipeline.domain.endpoints import Endpoint\n"
        "messages = [{'role': 'system', 'content': 's' * 300}, {'role': 'user', 'content': 'é' * 300}]\n"
        "print(levels_of(Endpoint.CHAT_COMPLETIONS)({'messages': messages}))"
    )

    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }

    assert len(found) == 1
