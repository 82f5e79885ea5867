"""How a model's folder says that token vectors become one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.domain.errors import ModelUnavailableError

#: sentence-transformers' names of the poolings supported here, as written in `1_Pooling/config.json`.
_POOLINGS: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
}

#: Assumed of a model that does not say.
_POSITIONS: Final = 512
#: They number positions from the one after the padding's.
_OFFSET_POSITIONS: Final = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """How token vectors become one: `mode` is mean, cls or max; `tokens_max` counts special tokens."""

    mode: str
    normalizes: bool
    tokens_max: int


def positions_of(config: dict[str, Any]) -> int:
    """Return how many tokens a model of this `config` can read at once."""
    positions = int(config.get("max_position_embeddings") or _POSITIONS)
    if config.get("model_type") in _OFFSET_POSITIONS:
        return positions - int(config.get("pad_token_id") or 0) - 1
    return positions


def pooling_of(folder: Path, *, tokens_max: int) -> Pooling:
    """Return the pooling that sentence-transformers' files in `folder` ask for; without them, mean and normalized.

    Raises:
        ModelUnavailableError: The folder asks for a module or a pooling that is not supported.
    """
    if not (folder / "modules.json").is_file():
        return Pooling(mode="mean", normalizes=True, tokens_max=tokens_max)
    modules = {module["type"].rpartition(".")[2]: module["path"] for module in _json(folder / "modules.json")}
    if unknown := modules.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise ModelUnavailableError(f"{folder.name} has unsupported modules: {', '.join(sorted(unknown))}")
    mode = "mean"
    if "Pooling" in modules:
        asked = [key for key, on in _json(folder / modules["Pooling"] / "config.json").items() if on is True]
        poolings = [key for key in asked if key.startswith("pooling_mode_")]
        if len(poolings) != 1 or poolings[0] not in _POOLINGS:
            raise ModelUnavailableError(f"{folder.name} asks for unsupported pooling: {', '.join(poolings)}")
        mode = _POOLINGS[poolings[0]]
    sentence = folder / "sentence_bert_config.json"
    bound = _json(sentence).get("max_seq_length") if sentence.is_file() else None
    return Pooling(mode=mode, normalizes="Normalize" in modules, tokens_max=min(bound or tokens_max, tokens_max))


def _json(file: Path) -> Any:  # noqa: ANN401 -- JSON of other people's making
    return json.loads(file.read_text())
