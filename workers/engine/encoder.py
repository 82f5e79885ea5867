"""Embeddings: texts sorted by length, batched under a token budget, pooled as the model's folder says."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ModelUnavailableError, RequestRefusedError
from pipeline.domain.models import ENDPOINTS, EngineKind, ModelSpec
from pipeline.domain.parameters import inputs_of
from pipeline.ports.engine import EngineRequest, EngineResult
from pipeline.ports.meters import EngineIdentity, EngineMeters
from workers.engine.answers import failure, refusal, unwrapped
from workers.engine.generation import options_of
from workers.engine.quiet import quiet_transformers

#: sentence-transformers' names of the poolings supported here, as written in `1_Pooling/config.json`.
_POOLINGS: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderOptions:
    """Settings of the engine."""

    #: Tokens of one forward pass, padding included.
    batch_tokens: int = 8192
    #: Rows kept waiting: the more, the closer in length the texts of a batch.
    rows_waiting_max: int = 1024
    #: Whether leading dimensions are an embedding of their own, so that `dimensions` can be honoured.
    matryoshka: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """How token vectors become one: `mode` is mean, cls or max; `tokens_max` counts special tokens."""

    mode: str
    normalizes: bool
    tokens_max: int


@dataclass(slots=True, eq=False)
class _Row:
    request: EngineRequest
    #: Tokens of each input.
    inputs: list[list[int]]
    #: One vector per input, filled as batches finish.
    vectors: list[Tensor | None]
    missing: int


class EncoderEngine:
    """One text encoder; implements `Engine` for embeddings."""

    name = "encoder"
    endpoints = ENDPOINTS[EngineKind.ENCODER]

    def __init__(
        self,
        model: str,
        *,
        encoder: Any,  # noqa: ANN401 -- transformers has no types
        tokenizer: Any,  # noqa: ANN401 -- as above
        pooling: Pooling,
        options: EncoderOptions,
        identity: EngineIdentity,
    ) -> None:
        """Serve a transformers encoder module under the name `model`."""
        self.model = model
        self.dimensions: int = encoder.config.hidden_size
        self._encoder = encoder
        self._tokenizer = tokenizer
        self._pooling = pooling
        self._options = options
        self.identity = identity
        self._steps = self._tokens = self._padding = 0
        #: (row, index of the input), sorted by length: the longest last.
        self._waiting: list[tuple[_Row, int]] = []
        self._rows = 0
        self._ended: list[EngineResult] = []

    def room(self) -> int:
        """Return how many more rows improve the sorting by length."""
        return max(0, self._options.rows_waiting_max - self.in_flight())

    def in_flight(self) -> int:
        """Return how many added rows have not come back yet."""
        return self._rows + len(self._ended)

    def add(self, requests: Sequence[EngineRequest]) -> None:
        """Tokenize rows in bulk and sort their inputs by length."""
        for request, tokens in zip(requests, self._tokenized(requests), strict=True):
            try:
                inputs = unwrapped(tokens)
                self._refuse_what_does_not_fit(request, inputs)
            except RequestRefusedError as error:
                self._ended.append(refusal(request, error))
            except Exception as error:  # noqa: BLE001 -- one row's failure is that row's error, never a raise
                self._ended.append(failure(request, error))
            else:
                row = _Row(request, inputs, [None] * len(inputs), len(inputs))
                self._rows += 1
                self._waiting += [(row, index) for index in range(len(inputs))]
        self._waiting.sort(key=lambda part: len(part[0].inputs[part[1]]))

    def step(self) -> Sequence[EngineResult]:
        """Embed one batch, the longest texts first, and return the rows that are whole now."""
        results, self._ended = self._ended, []
        parts = self._batch()
        if not parts:
            return results
        self._count([len(row.inputs[index]) for row, index in parts])
        vectors = self._embed([row.inputs[index] for row, index in parts])
        for (row, index), vector in zip(parts, vectors, strict=True):
            row.vectors[index] = vector
            row.missing -= 1
            if not row.missing:
                self._rows -= 1
                results.append(self._result(row))
        return results

    def meters(self) -> EngineMeters:
        """Return the counters. A batch is as large as its token budget lets it be: there are no slots to be empty."""
        return EngineMeters(
            engine_steps=self._steps, tokens_prefilled=self._tokens, tokens_cached=0, tokens_padding=self._padding
        )

    def abort(self, keys: Sequence[int]) -> None:
        """Forget these rows, parts already embedded included."""
        gone = frozenset(keys)
        self._rows -= len({id(row) for row, _ in self._waiting if row.request.key in gone})
        self._waiting = [part for part in self._waiting if part[0].request.key not in gone]
        self._ended = [result for result in self._ended if result.key not in gone]

    def close(self) -> None:
        """Drop the model and forget every row."""
        self._waiting, self._ended, self._rows = [], [], 0
        self._encoder = None

    # --- entering ------------------------------------------------------------------------------

    def _tokenized(self, requests: Sequence[EngineRequest]) -> list[list[list[int]] | Exception]:
        """Return the tokens of each input of each row, or what went wrong with that row."""
        if not requests:
            return []
        texts = [inputs_of(request.body) if request.endpoint is Endpoint.EMBEDDINGS else [""] for request in requests]
        try:
            flat = iter(self._tokenizer([text for inputs in texts for text in inputs], truncation=False)["input_ids"])
        except Exception as error:  # noqa: BLE001 -- such as half a surrogate pair: find the row it belongs to
            if len(requests) == 1:
                return [error]
            middle = len(requests) // 2
            return self._tokenized(requests[:middle]) + self._tokenized(requests[middle:])
        return [[next(flat) for _ in inputs] for inputs in texts]

    def _refuse_what_does_not_fit(self, request: EngineRequest, tokens: list[list[int]]) -> None:
        if request.endpoint is not Endpoint.EMBEDDINGS:
            raise RequestRefusedError(
                f"This model does not serve {request.endpoint.value}.", code="unsupported_endpoint", param="body.model"
            )
        longest = max(map(len, tokens))
        if longest > self._pooling.tokens_max:
            raise RequestRefusedError(
                f"This model's maximum context length is {self._pooling.tokens_max} tokens; an input has {longest}.",
                code="context_length_exceeded",
                param="body.input",
            )
        wanted = request.body.get("dimensions")
        if wanted is None or wanted == self.dimensions:
            return
        if not self._options.matryoshka or wanted > self.dimensions:
            raise RequestRefusedError(
                f"Parameter 'dimensions' is not supported by this model; its embeddings have {self.dimensions}.",
                code="unsupported_parameter",
                param="body.dimensions",
            )

    def _count(self, lengths: Sequence[int]) -> None:
        self._steps += 1
        self._tokens += sum(lengths)
        self._padding += max(lengths) * len(lengths) - sum(lengths)

    # --- running -------------------------------------------------------------------------------

    def _batch(self) -> list[tuple[_Row, int]]:
        """Take the longest waiting texts whose padded rectangle fits the token budget; at least one."""
        if not self._waiting:
            return []
        row, index = self._waiting[-1]
        count = max(1, self._options.batch_tokens // len(row.inputs[index]))
        parts = self._waiting[-count:]
        del self._waiting[-count:]
        return parts

    @torch.inference_mode()
    def _embed(self, inputs: list[list[int]]) -> Tensor:
        """Return float32 vectors (inputs, dimensions), on the CPU."""
        device = self._encoder.device
        longest = max(map(len, inputs))
        ids = torch.full((len(inputs), longest), self._tokenizer.pad_token_id or 0)
        lengths = torch.tensor([len(tokens) for tokens in inputs])
        for row, tokens in enumerate(inputs):
            ids[row, : len(tokens)] = torch.tensor(tokens)
        mask = torch.arange(longest)[None] < lengths[:, None]
        mask = mask.to(device)
        hidden = self._encoder(input_ids=ids.to(device), attention_mask=mask.long()).last_hidden_state.float()
        pooled = _pool(hidden, mask[:, :, None], self._pooling.mode)
        if self._pooling.normalizes:
            pooled = functional.normalize(pooled, dim=-1)
        return pooled.cpu()

    def _result(self, row: _Row) -> EngineResult:
        wanted = row.request.body.get("dimensions") or self.dimensions
        as_base64 = row.request.body.get("encoding_format") == "base64"
        data = []
        for index, vector in enumerate(row.vectors):
            assert vector is not None
            # A leading part of a unit vector is not of unit length any more.
            whole = vector if wanted == self.dimensions else functional.normalize(vector[:wanted], dim=-1)
            # OpenAI's base64 is the little-endian float32 array.
            shown = base64.b64encode(whole.numpy().astype("<f4").tobytes()).decode() if as_base64 else whole.tolist()
            data.append({"object": "embedding", "index": index, "embedding": shown})
        used = sum(map(len, row.inputs))
        body = {
            "object": "list",
            "data": data,
            "model": self.model,
            "usage": {"prompt_tokens": used, "total_tokens": used},
        }
        return EngineResult(row.request.key, 200, body, used, 0)


def _pool(hidden: Tensor, mask: Tensor, mode: str) -> Tensor:
    """Return one vector per text from `hidden` (texts, tokens, dimensions) where `mask` (texts, tokens, 1) is true."""
    if mode == "cls":
        return hidden[:, 0]
    if mode == "max":
        return hidden.masked_fill(~mask, float("-inf")).amax(dim=1)
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1)


# --- loading -----------------------------------------------------------------------------------


def load(spec: ModelSpec, folder: Path, *, revision: str, device: str | None, threads: int | None) -> EncoderEngine:
    """Return an engine for the encoder in `folder`; options of the spec are the fields of `EncoderOptions`.

    The weights run in float32 on a CPU, where these models are small, and in bf16 on an accelerator.

    Raises:
        ModelUnavailableError: An option or a pooling is unknown, or the weights cannot be loaded.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    options = options_of(EncoderOptions, dict(spec.options))
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = torch.float32 if place.type == "cpu" else torch.bfloat16
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            encoder = AutoModel.from_pretrained(folder, dtype=dtype, use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnavailableError(f"{spec.name} cannot be loaded as an encoder: {error}") from error
    encoder.to(device=place)
    # Inputs too long are refused here by name; transformers' own advice about them would be noise.
    tokenizer.model_max_length = int(1e9)
    return EncoderEngine(
        spec.name,
        encoder=encoder.eval(),
        tokenizer=tokenizer,
        pooling=pooling_of(folder, tokens_max=encoder.config.max_position_embeddings),
        options=options,
        identity=EngineIdentity(
            engine=EncoderEngine.name,
            version=torch.__version__.partition("+")[0],
            precision=str(dtype).removeprefix("torch."),
            revision=revision,
            device=str(place),
        ),
    )


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
