"""Files as users name them: what they are for, and how long they stay."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class FilePurpose(StrEnum):
    """OpenAI's purposes; only files for `batch` are ever read here."""

    ASSISTANTS = "assistants"
    ASSISTANTS_OUTPUT = "assistants_output"
    BATCH = "batch"
    BATCH_OUTPUT = "batch_output"
    EVALS = "evals"
    FINE_TUNE = "fine-tune"
    FINE_TUNE_RESULTS = "fine-tune-results"
    USER_DATA = "user_data"
    VISION = "vision"


#: Those that a user may upload a file for.
UPLOADABLE: Final = frozenset(
    {
        FilePurpose.ASSISTANTS,
        FilePurpose.BATCH,
        FilePurpose.EVALS,
        FilePurpose.FINE_TUNE,
        FilePurpose.USER_DATA,
        FilePurpose.VISION,
    }
)
