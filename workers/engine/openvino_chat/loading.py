"""An `OpenVinoEngine` from a prepared model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import openvino
import openvino_genai
from transformers import AutoTokenizer

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import ModelSpec, Recipe
from pipeline.ports.meters import EngineIdentity
from workers.engine.generation import end_tokens, options_of
from workers.engine.models import published
from workers.engine.openvino_chat.engine import OpenVinoEngine, OpenVinoOptions
from workers.engine.openvino_chat.export import export
from workers.engine.quiet import quiet_transformers
from workers.engine.shape import DecoderShape

#: Assumed of a model that does not name its context.
_CONTEXT_TOKENS: Final = 2048


def load(spec: ModelSpec, folder: Path, *, revision: str, cache_dir: Path, threads: int | None) -> OpenVinoEngine:
    """Return an engine for the model in `folder`, exported on first use and kept in `cache_dir`.

    Options of the spec are the fields of `OpenVinoOptions`.

    Raises:
        ModelUnavailableError: An option is unknown, or the model cannot be exported or loaded.
    """
    options = options_of(OpenVinoOptions, dict(spec.options))
    exported = exported_folder(spec, folder, revision=revision, cache_dir=cache_dir)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    file = folder / "generation_config.json"
    generation: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    properties: dict[str, Any] = {} if threads is None else {"INFERENCE_NUM_THREADS": threads}
    if spec.recipe is Recipe.FLOAT32:
        # Else the plugin computes in bf16 where the processor can.
        properties["INFERENCE_PRECISION_HINT"] = "f32"
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        pipeline = openvino_genai.ContinuousBatchingPipeline(exported, _scheduler(options), "CPU", properties)
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelUnavailableError(f"{spec.name} cannot be loaded by OpenVINO: {first}") from error
    return OpenVinoEngine(
        spec.name,
        pipeline=pipeline,
        tokenizer=tokenizer,
        end_tokens=end_tokens(tokenizer, [each.get("eos_token_id") for each in (config, generation)]),
        # A row that the cache cannot hold would wait in the batcher for ever.
        tokens_max=min(_context_tokens(config), _cache_tokens(options, config)),
        options=options,
        identity=EngineIdentity(
            engine=OpenVinoEngine.name,
            version=openvino.__version__.partition("-")[0],
            precision=spec.recipe,
            revision=revision,
        ),
    )


def exported_folder(spec: ModelSpec, folder: Path, *, revision: str, cache_dir: Path) -> Path:
    """Return where OpenVINO's form of the variant lies, exporting it first where it is not there."""
    return published(
        cache_dir / f"openvino-{openvino.__version__.partition('-')[0]}-{spec.recipe}-{revision}",
        lambda work: export(folder, work, spec.recipe),
    )


def _scheduler(options: OpenVinoOptions) -> openvino_genai.SchedulerConfig:
    config = openvino_genai.SchedulerConfig()
    config.cache_size = options.cache_gib
    config.max_num_seqs = options.slots
    config.max_num_batched_tokens = options.step_tokens
    config.dynamic_split_fuse = True
    config.enable_prefix_caching = options.shares_prefixes
    return config


def _context_tokens(config: dict[str, Any]) -> int:
    return int(config.get("max_position_embeddings") or config.get("n_positions") or _CONTEXT_TOKENS)


def _cache_tokens(options: OpenVinoOptions, config: dict[str, Any]) -> int:
    """Return how many tokens of one row the cache holds at most, keys and values in 32 bits."""
    return options.cache_gib * 1024**3 // DecoderShape.of(config).kv_bytes_per_token(number_bytes=4)
