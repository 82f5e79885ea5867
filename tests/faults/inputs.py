"""Input files of a run: every row its own text, with duplicates, refused rows and awkward strings among them."""

from __future__ import annotations

import json
import random
from pathlib import Path

SIDE_ROWS = 40
_AWKWARD = ("", "naïve café", "日本語", "line\nbreak", 'quote " and \\', "\u2028", "🌙")


def write_input(path: Path, *, rows: int, seed: int, prefix: str = "row") -> list[str]:
    """Write a file of chat requests and return its custom ids in order."""
    chance = random.Random(seed)
    custom_ids = []
    body: dict[str, object] = {}
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            custom_id = f"{prefix}-{row:07d}-{chance.randrange(1 << 16):x}"
            custom_ids.append(custom_id)
            # Each fiftieth repeats the body before it; each hundred-and-first asks for what nobody honours.
            if row % 50 or not body:
                body = _body(chance, f"{prefix} {row} {_AWKWARD[row % len(_AWKWARD)]}", is_refused=row % 101 == 100)
            line = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line, ensure_ascii=bool(row % 2)) + "\n")
    return custom_ids


def _body(chance: random.Random, text: str, *, is_refused: bool) -> dict[str, object]:
    words = " ".join(chance.choices(["night", "rate", "batch", "lease", "pack", "shard"], k=chance.randrange(4, 24)))
    return {
        "model": "echo",
        "messages": [
            {"role": "system", "content": f"You are number {chance.randrange(8)}."},
            {"role": "user", "content": f"{text} {words}"},
        ],
        "max_tokens": 64,
        "temperature": 9 if is_refused else 0,
    }
