"""What GPUs can do at best, as their datasheets say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One kind of GPU: peak figures, without sparsity."""

    name: str
    #: Decimal gigabytes.
    memory_gb: int
    bandwidth_gb_per_second: int
    tflops_16bit: int
    #: 0: its cores have no such arithmetic.
    tflops_8bit: int
    watts: int
    source: str

    def tflops(self, weight_bits: int) -> int:
        """Return the peak with weights of so many bits; what is under eight is computed with in sixteen."""
        return self.tflops_8bit if weight_bits == 8 and self.tflops_8bit else self.tflops_16bit  # noqa: PLR2004


@cache
def gpus() -> Mapping[str, Gpu]:
    """Return the GPUs that are known here, by name."""
    table = _table()["gpus"]
    assert isinstance(table, list)
    return MappingProxyType({row["name"]: Gpu(**row) for row in table})


@cache
def gpus_as_of() -> str:
    """Return the day of the table."""
    return str(_table()["as_of"])


def _table() -> dict[str, object]:
    found: dict[str, object] = json.loads((files(__package__) / "gpus.json").read_text())
    return found
