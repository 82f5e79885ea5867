"""docs/intake.md names every code that a user can meet, and none that nobody sends."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
#: Where codes are sent from.
SOURCES = (
    "pipeline/submit",
    "pipeline/report",
    "pipeline/domain/parameters.py",
    "pipeline/domain/checks.py",
    "pipeline/domain/constraints.py",
    "pipeline/domain/images.py",
    "pipeline/app/batches.py",
    "scheduler",
    "workers",
)
SENT = re.compile(
    r"""(?:code=|BadLineError\(\s*|refuse_file\(\s*|encode_unanswered\(\s*|: \()"([a-z]+_[a-z_]+)"|, "([a-z]+_[a-z_]+)", name"""
)
#: OpenAI's name for the type of every error, and what is sent of other things than requests.
NOT_CODES = {"invalid_request_error"}


def sent_codes() -> set[str]:
    files = [
        file
        for source in SOURCES
        for file in ([ROOT / source] if source.endswith(".py") else (ROOT / source).rglob("*.py"))
    ]
    found = (match for file in files for match in SENT.finditer(file.read_text()))
    return {match[1] or match[2] for match in found} - NOT_CODES


def test_the_document_names_the_codes_that_are_sent() -> None:
    document = (ROOT / "docs/intake.md").read_text()
    named = set(re.findall(r"`([a-z]+_[a-z_]+)`", document))

    assert sent_codes() - named == set()
