"""What the gate says of a variant, and what it must be asked again for."""

from __future__ import annotations

import hashlib
from enum import StrEnum


class GateVerdict(StrEnum):
    """The last word on a variant for one tier."""

    #: Shown to lose less than the tier's margin to its reference.
    ACCEPTED = "accepted"
    #: Shown to be worse than its reference.
    REJECTED = "rejected"
    #: The data were not enough for either; the reference runs.
    UNDECIDED = "undecided"
    #: A person said so, and why.
    ALLOWED = "allowed"

    @property
    def lets_run(self) -> bool:
        """Say whether the tier's rows may run on the variant."""
        return self in {GateVerdict.ACCEPTED, GateVerdict.ALLOWED}


def gate_key(*, revision: str, recipe: str, engine: str, engine_version: str, numerics: str) -> str:
    """Return a short hash of everything that changes a variant's answers: a verdict holds for one of these.

    Args:
        revision: Hash of the weights.
        recipe: How they are quantized.
        engine: The engine's name.
        engine_version: Its library's version.
        numerics: Which kernels run, such as `cpu x86_64 avx2`.
    """
    parts = (revision, recipe, engine, engine_version, numerics)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
