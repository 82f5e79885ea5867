"""A `VllmEngine` from a prepared model folder."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoTokenizer, GenerationConfig

from pipeline.domain.errors import ModelUnavailableError
from pipeline.domain.models import DeviceClass, ModelSpec, Recipe
from pipeline.ports.meters import EngineIdentity
from workers.engine.generation import end_tokens, options_of
from workers.engine.quiet import quiet_transformers
from workers.engine.torch_chat.linear import has_fast_bf16
from workers.engine.vllm_chat.build import check_build
from workers.engine.vllm_chat.core import VllmCore
from workers.engine.vllm_chat.engine import VllmEngine
from workers.engine.vllm_chat.options import VllmOptions

_GIB: Final = 1024**3
#: Of a CPU's memory for keys and values, where the options do not say: the share of a card means nothing there.
_CPU_CACHE_GIB: Final = 4.0
#: vLLM's word for the longest context that the cache holds.
_FITTING: Final = -1
_DTYPES: Final = {Recipe.FLOAT32: "float32", Recipe.BFLOAT16: "bfloat16", Recipe.FLOAT16: "float16"}
#: Read once, when vLLM is imported. The engine's port is synchronous and a worker's meters are its process's, so the
#: model runs in this process; nothing is sent to anybody; what goes wrong is raised and logged by us.
_ENVIRONMENT: Final = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


def load(
    spec: ModelSpec, folder: Path, *, revision: str, cache_dir: Path, device: str | None, threads: int | None
) -> VllmEngine:
    """Return an engine for the model in `folder`.

    Options of the spec are the fields of `VllmOptions`. What vLLM compiles is kept in `cache_dir`.

    Raises:
        ModelUnavailableError: An option is unknown, the device is not the installed build's, or vLLM cannot load it.
    """
    options = options_of(VllmOptions, dict(spec.options))
    place = check_build(spec, device)
    settings = _settings(spec, folder, options, place)
    for name, value in _ENVIRONMENT.items():
        os.environ[name] = value
    os.environ.setdefault("VLLM_CACHE_ROOT", str(cache_dir / "vllm"))
    try:
        with quiet_transformers(), _offline(), _threads(threads), _quiet_logging():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            engine = _started(settings)
    except Exception as error:
        # vLLM raises what its many parts raise.
        first = str(error).strip().partition("\n")[0]
        raise ModelUnavailableError(f"{spec.name} cannot be loaded by vLLM: {type(error).__name__}: {first}") from error
    model = engine.model_config
    return VllmEngine(
        spec.name,
        core=VllmCore(engine, is_eager=options.eager),
        tokenizer=tokenizer,
        end_tokens=end_tokens(tokenizer, [model.hf_text_config.eos_token_id, _generation_end(folder)]),
        vocabulary=model.get_vocab_size(),
        tokens_max=model.max_model_len,
        options=options,
        identity=EngineIdentity(
            engine=VllmEngine.name,
            version=_version(),
            precision=_precision(spec.recipe, str(model.dtype).removeprefix("torch."), model.quantization),
            revision=revision,
            device="cpu" if place is DeviceClass.CPU else "cuda:0",
        ),
    )


def _settings(spec: ModelSpec, folder: Path, options: VllmOptions, place: DeviceClass) -> dict[str, Any]:
    """Return the fields of vLLM's `EngineArgs`."""
    cache_gib = options.cache_gib or (_CPU_CACHE_GIB if place is DeviceClass.CPU else 0.0)
    settings: dict[str, Any] = {
        "model": str(folder),
        "tokenizer": str(folder),
        "trust_remote_code": False,
        # Never a pickle.
        "load_format": "safetensors",
        "use_tqdm_on_load": False,
        "dtype": _dtype(spec.recipe, place),
        "quantization": "fp8" if spec.recipe is Recipe.FLOAT8 else options.quantization or None,
        "max_model_len": options.context_tokens or _FITTING,
        "max_num_seqs": options.slots,
        "gpu_memory_utilization": options.memory_share,
        "kv_cache_dtype": options.cache_dtype,
        "tensor_parallel_size": options.cards,
        "enforce_eager": options.eager,
        "enable_prefix_caching": options.shares_prefixes,
        # What a request does not say is OpenAI's default, not the checkpoint's.
        "generation_config": "vllm",
        # As in the torch engine: the model's own, before anything a request asks for.
        "logprobs_mode": "raw_logprobs",
        # The torch engine's library too, so that a form means the same.
        "structured_outputs_config": {"backend": "guidance"},
        "disable_log_stats": True,
        "seed": 0,
    }
    if options.step_tokens:
        settings["max_num_batched_tokens"] = options.step_tokens
    if cache_gib:
        settings["kv_cache_memory_bytes"] = int(cache_gib * _GIB)
    return settings


def _dtype(recipe: Recipe, place: DeviceClass) -> str:
    """Return vLLM's `dtype`; its own choice on a CPU is 16 bits, which is slow where products in them are emulated."""
    if recipe in _DTYPES:
        return _DTYPES[recipe]
    if place is DeviceClass.CPU and not has_fast_bf16():
        return "float32"
    return "auto"


def _started(settings: dict[str, Any]) -> Any:  # noqa: ANN401 -- vLLM is not there where types are checked
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    return LLMEngine.from_engine_args(EngineArgs(**settings))


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Run the body without asking the hub: the model lies in a folder."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _quiet_logging() -> Iterator[None]:
    """Run the body without vLLM's own notes, and take its field out of everybody's log records again."""
    logging.getLogger("vllm").setLevel(logging.ERROR)
    factory = logging.getLogRecordFactory()
    try:
        yield
    finally:
        logging.setLogRecordFactory(factory)


@contextlib.contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    """Run the body with so many CPU threads, and give torch back its own setter, which vLLM takes away on CPUs."""
    setter = torch.set_num_threads
    wanted = torch.get_num_threads() if threads is None else threads
    setter(wanted)
    try:
        yield
    finally:
        torch.set_num_threads = setter
        setter(wanted)


def _generation_end(folder: Path) -> int | list[int] | None:
    if not (folder / "generation_config.json").is_file():
        return None
    named: int | list[int] | None = GenerationConfig.from_pretrained(folder).eos_token_id
    return named


def _precision(recipe: Recipe, dtype: str, quantization: str | None) -> str:
    """Return what the weights are in, and, where they are quantized, what everything around them is in."""
    name = "float8" if recipe is Recipe.FLOAT8 else quantization
    return f"{name}_{dtype}" if name else dtype


def _version() -> str:
    import vllm

    return str(vllm.__version__).partition("+")[0]
