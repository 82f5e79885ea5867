"""From a model folder to OpenVINO's form of it, by optimum-intel and NNCF, in a process of its own.

    python -m workers.engine.openvino_chat.export SOURCE TARGET RECIPE

Tracing takes twice the model's memory and a library that a worker otherwise never imports, so neither stays.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import Recipe
from workers.engine.openvino_chat.calibration import TEXTS

#: Longest export; a model of several billion weights takes minutes.
_SECONDS_MAX = 3600
_SHOWN_CHARS = 500
#: Weights that share a scale in 4 bits.
_GROUP_WEIGHTS = 64


def export(source: Path, target: Path, recipe: Recipe) -> None:
    """Write OpenVINO's form of the model in the folder `source` into the folder `target`.

    The native recipe keeps the weights' own width, bf16 becoming fp16; the quantized ones compress them.

    Raises:
        ModelUnavailableError: The model's architecture is not known there, or its files are no model.
    """
    run_export(__name__, source, target, recipe)


def run_export(module: str, source: Path, *arguments: object) -> None:
    """Run our own `module` on the model folder `source`, with these further arguments, in a process of its own.

    Raises:
        ModelUnavailableError: It failed or took too long; the message has the last line it wrote.
    """
    command = [sys.executable, "-P", "-m", module, str(source), *map(str, arguments)]
    root = Path(__file__).parents[3]
    try:
        done = subprocess.run(  # noqa: S603 -- our own module, arguments are paths
            command, check=False, capture_output=True, text=True, timeout=_SECONDS_MAX, env=_environment(root)
        )
    except subprocess.TimeoutExpired as error:
        raise ModelUnavailableError(f"{source.name} was not exported within {_SECONDS_MAX} s") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise ModelUnavailableError(f"{source.name} cannot be exported to OpenVINO: {said[-1][:_SHOWN_CHARS]}")


def _environment(root: Path) -> dict[str, str]:
    import os

    # What the libraries would fetch or report has no place here.
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **offline, "PYTHONPATH": path}


def _main() -> None:
    source, target, name = sys.argv[1:]
    recipe = Recipe(name)
    if recipe in {Recipe.INT8_WEIGHTS, Recipe.INT4_WEIGHTS}:
        _export_quantized(source, target, recipe)
    else:
        _export_plain(source, target, recipe)


def _export_plain(source: str, target: str, recipe: Recipe) -> None:
    from optimum.exporters.openvino import main_export
    from optimum.intel import OVConfig

    main_export(
        source,
        Path(target),
        task="text-generation-with-past",
        library_name="transformers",
        # Named whatever it is: without it, weights past a size are compressed without having been asked to.
        ov_config=OVConfig(dtype="fp32" if recipe is Recipe.FLOAT32 else None),
        # Prompts come as tokens and answers leave as tokens: one tokenizer for every engine.
        convert_tokenizer=False,
        stateful=True,
        trust_remote_code=False,
    )


def _export_quantized(source: str, target: str, recipe: Recipe) -> None:
    """Write weights in 8 bits, a scale a row; or in 4, scaled by what AWQ and scale estimation see in texts."""
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

    if recipe is Recipe.INT8_WEIGHTS:
        quantization = OVWeightQuantizationConfig(bits=8, sym=False)
    else:
        quantization = OVWeightQuantizationConfig(
            bits=4,
            sym=False,
            group_size=_GROUP_WEIGHTS,
            group_size_fallback="adjust",
            dataset=list(TEXTS),
            num_samples=len(TEXTS),
            tokenizer=source,
            quant_method="awq",
            scale_estimation=True,
        )
    model = OVModelForCausalLM.from_pretrained(
        source, export=True, stateful=True, compile=False, quantization_config=quantization, trust_remote_code=False
    )
    model.save_pretrained(target)


if __name__ == "__main__":
    _main()
