"""Evaluation sets made here, so that the gate works with no data: small tasks that a small model half masters.

They come from a seed and nothing else, and the same seed gives the same set for ever: verdicts on them are kept.
Half masters, because an item that both models get right, or both wrong, tells nothing of their difference. They tell
whether a variant computes as its reference does; how it does a user's work, only the user's items tell.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import EvaluationFileError
from workers.gate.items import EvaluationSet, read_lines

COUNT_DEFAULT: Final = 2000

_KINDS: Final = {
    "animal": ("horse", "sparrow", "salmon", "spider", "goat", "lizard", "whale", "rabbit", "beetle", "camel"),
    "fruit": ("apple", "plum", "banana", "cherry", "mango", "lemon", "peach", "grape", "melon", "pear"),
    "tool": ("hammer", "saw", "wrench", "drill", "chisel", "pliers", "shovel", "axe", "file", "rake"),
    "colour": ("red", "green", "violet", "yellow", "brown", "orange", "white", "black", "grey", "blue"),
    "country": ("France", "Japan", "Kenya", "Brazil", "Norway", "India", "Egypt", "Peru", "Spain", "Canada"),
    "metal": ("iron", "copper", "silver", "zinc", "nickel", "lead", "tin", "gold", "cobalt", "titanium"),
}
_CAPITALS: Final = {
    "France": "Paris", "Japan": "Tokyo", "Kenya": "Nairobi", "Norway": "Oslo", "Egypt": "Cairo", "Peru": "Lima",
    "Spain": "Madrid", "Italy": "Rome", "Germany": "Berlin", "Russia": "Moscow", "China": "Beijing", "Cuba": "Havana",
    "Greece": "Athens", "Portugal": "Lisbon", "Ireland": "Dublin", "Austria": "Vienna", "Poland": "Warsaw",
    "Sweden": "Stockholm", "Finland": "Helsinki", "Thailand": "Bangkok",
}  # fmt: skip
_PLACES: Final = (
    "harbour",
    "market",
    "library",
    "station",
    "museum",
    "garden",
    "bridge",
    "school",
    "bakery",
    "theatre",
)
_EVENTS: Final = ("opened", "closed", "burned", "was sold", "was painted", "was flooded", "moved", "was rebuilt")
_TIMES: Final = (
    "in spring",
    "last night",
    "in 1912",
    "on Monday",
    "before dawn",
    "after the storm",
    "at noon",
    "in May",
)

Task = Callable[[random.Random], tuple[str, object]]


def chat_set(*, count: int = COUNT_DEFAULT, seed: int = 1) -> EvaluationSet:
    """Return `count` chat items with expected answers, in a slice for each kind of task."""
    return read_lines(chat_lines(count=count, seed=seed), name=f"built-in chat, {count} items, seed {seed}")


def embeddings_set(*, count: int = 500, seed: int = 1) -> EvaluationSet:
    """Return `count` queries to be found among as many documents."""
    name = f"built-in retrieval, {count} items, seed {seed}"
    return read_lines(embeddings_lines(count=count, seed=seed), name=name)


def set_for(endpoint: Endpoint, *, seed: int = 1) -> EvaluationSet:
    """Return the built-in set that an engine of `endpoint` is measured on, at its usual size."""
    match endpoint:
        case Endpoint.EMBEDDINGS:
            return embeddings_set(seed=seed)
        case Endpoint.CHAT_COMPLETIONS:
            return chat_set(seed=seed)
        case Endpoint.COMPLETIONS:
            lines = completions_lines(count=COUNT_DEFAULT, seed=seed)
            return read_lines(lines, name=f"built-in completions, {COUNT_DEFAULT} items, seed {seed}")
        case Endpoint.RESPONSES | Endpoint.SCORE | Endpoint.RERANK | Endpoint.CLASSIFY:
            raise EvaluationFileError(f"there are no built-in items for {endpoint}", hint="give a file of your own")


def chat_lines(*, count: int, seed: int) -> Iterator[bytes]:
    """Yield the lines of `chat_set`: a file of them is an evaluation file."""
    for index, (name, prompt, expected) in enumerate(_tasks(count, seed)):
        body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 16}
        yield _line(index, Endpoint.CHAT_COMPLETIONS, body, expected=expected, slice=name)


def completions_lines(*, count: int, seed: int) -> Iterator[bytes]:
    """Yield the same tasks for models without a chat template."""
    for index, (name, prompt, expected) in enumerate(_tasks(count, seed)):
        body = {"prompt": f"Question: {prompt}\nAnswer:", "max_tokens": 16, "stop": ["\n"]}
        yield _line(index, Endpoint.COMPLETIONS, body, expected=expected, slice=name)


def embeddings_lines(*, count: int, seed: int) -> Iterator[bytes]:
    """Yield the lines of `embeddings_set`: documents, and a question for each."""
    rng = random.Random(seed)  # noqa: S311 -- items, not secrets
    for index in range(count):
        who, place = rng.choice(_KINDS["colour"]), rng.choice(_PLACES)
        event, time, country = rng.choice(_EVENTS), rng.choice(_TIMES), rng.choice(list(_CAPITALS))
        text = f"The {who} {place} in {_CAPITALS[country]} {event} {time}."
        yield _line(f"document-{index}", Endpoint.EMBEDDINGS, {"input": text}, document=True)
        # The country stands for its capital, and nothing else is told of the text.
        query = f"{event.split()[-1]} {time}: what, in {country}?"
        expected = {"retrieves": [f"document-{index}"]}
        yield _line(f"query-{index}", Endpoint.EMBEDDINGS, {"input": query}, expected=expected, slice=place)


def _tasks(count: int, seed: int) -> Iterator[tuple[str, str, object]]:
    rng = random.Random(seed)  # noqa: S311 -- items, not secrets
    names = sorted(_TASKS)
    for index in range(count):
        name = names[index % len(names)]
        yield name, *_TASKS[name](rng)


def _line(index: int | str, endpoint: Endpoint, body: dict[str, Any], **more: object) -> bytes:
    row = {"custom_id": f"{index}", "method": "POST", "url": endpoint.value, "body": body, **more}
    return json.dumps(row).encode()


# --- tasks -------------------------------------------------------------------------------------


def _sum(rng: random.Random) -> tuple[str, object]:
    first, second = rng.randint(2, 60), rng.randint(2, 40)
    return f"What is {first} + {second}? Answer with the number only.", {"number": first + second}


def _kind(rng: random.Random) -> tuple[str, object]:
    kinds = rng.sample(sorted(_KINDS), 4)
    wanted = rng.randrange(4)
    options = "\n".join(f"{label}. {rng.choice(_KINDS[kind])}" for label, kind in zip("ABCD", kinds, strict=True))
    prompt = f"Which of these is a {kinds[wanted]}?\n{options}\nAnswer with the letter only."
    return prompt, {"choice": "ABCD"[wanted]}


def _capital(rng: random.Random) -> tuple[str, object]:
    country = rng.choice(sorted(_CAPITALS))
    form = rng.choice(("What is the capital of {}?", "Name the capital city of {}.", "{}'s capital is which city?"))
    return form.format(country), {"contains": _CAPITALS[country], "ignore_case": True}


def _repeat(rng: random.Random) -> tuple[str, object]:
    words = [rng.choice(rng.choice(list(_KINDS.values()))) for _ in range(rng.randint(2, 4))]
    text = " ".join(words)
    return f"Repeat exactly: {text}", {"contains": text, "ignore_case": True}


def _larger(rng: random.Random) -> tuple[str, object]:
    first, second = rng.sample(range(10, 999), 2)
    return f"Which number is larger, {first} or {second}? Answer with the number only.", {"number": max(first, second)}


def _last_word(rng: random.Random) -> tuple[str, object]:
    words = [rng.choice(_KINDS["animal"]), rng.choice(_KINDS["fruit"]), rng.choice(_KINDS["tool"])]
    return f"What is the last word of this list: {', '.join(words)}?", {"contains": words[-1], "ignore_case": True}


_TASKS: Final[dict[str, Task]] = {
    "capital": _capital,
    "kind": _kind,
    "larger": _larger,
    "last_word": _last_word,
    "repeat": _repeat,
    "sum": _sum,
}
