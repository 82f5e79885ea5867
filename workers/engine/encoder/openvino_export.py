"""From an encoder's folder to OpenVINO's form of it, by optimum-intel and NNCF, in a process of its own.

python -m workers.engine.encoder.openvino_export SOURCE TARGET TASK WEIGHTS
"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from workers.engine.encoder.calibration import calibration_texts
from workers.engine.encoder.pooling import positions_of
from workers.engine.openvino_chat.export import run_export

FILE: Final = "openvino_model.xml"
#: Part of the name of what is kept: raised when the same recipe makes something else.
RECIPE_VERSION: Final = 1


class Recipe(StrEnum):
    """What is done to the weights; part of the name of what is kept."""

    FLOAT32 = "float32"
    #: Weights alone in 8 bits.
    INT8_WEIGHTS = "int8_weights"
    #: Weights and activations in 8 bits, by NNCF's post-training quantization with our calibration texts.
    INT8 = "int8"


class Task(StrEnum):
    """What the exported model gives, in optimum's words."""

    VECTORS = "feature-extraction"
    LABELS = "text-classification"


def export(source: Path, target: Path, *, task: Task, recipe: Recipe) -> None:
    """Write OpenVINO's form of the encoder in the folder `source` into the folder `target`.

    Raises:
        ModelUnavailableError: The model's architecture is not known there, or its files are no model.
    """
    run_export(__name__, source, target, task, recipe)


def _main() -> None:
    from optimum.exporters.openvino import main_export
    from optimum.intel import OVConfig

    source, target, task, recipe = sys.argv[1:]
    main_export(
        source,
        Path(target),
        task=task,
        library_name="transformers",
        convert_tokenizer=False,
        trust_remote_code=False,
        # Unasked, weights of the largest models would be halved or quartered.
        ov_config=OVConfig(dtype="fp32"),
    )
    if recipe != Recipe.FLOAT32:
        _shrink(Path(source), Path(target) / FILE, Recipe(recipe))


def _shrink(source: Path, file: Path, recipe: Recipe) -> None:
    import nncf
    import openvino
    from transformers import AutoTokenizer

    model = openvino.Core().read_model(file)
    if recipe is Recipe.INT8_WEIGHTS:
        model = nncf.compress_weights(model)
    else:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        tokens_max = positions_of(json.loads((source / "config.json").read_text()))
        names = {name for port in model.inputs for name in port.get_names()}

        def encoded(text: str) -> dict[str, Any]:
            found = tokenizer(
                text, return_tensors="np", return_token_type_ids=True, truncation=True, max_length=tokens_max
            )
            return {name: found[name] for name in names}

        texts = calibration_texts()
        model = nncf.quantize(
            model,
            nncf.Dataset(texts, encoded),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(texts),
        )
    # OpenVINO maps the old weights as long as the model lives: write beside them, then take their place.
    fresh = file.with_name("fresh.xml")
    openvino.save_model(model, fresh, compress_to_fp16=False)
    del model
    for suffix in (".xml", ".bin"):
        fresh.with_suffix(suffix).replace(file.with_suffix(suffix))


if __name__ == "__main__":
    _main()
