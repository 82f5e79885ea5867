"""The judge: between packs, a model's reference looks at a few answers that its variants gave.

It runs on the runner's thread while the engine is empty, and takes a small share of the worker's time: after a turn it
rests until the turn is that share of the time passed. What it computed is lost with the process until it is recorded;
then the samples are free again and somebody judges them afresh. Figures are recorded, never texts, and no text is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

import orjson

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import NightrateError, StoreUnavailableError
from pipeline.domain.objects.shard import decode_rows
from pipeline.domain.wealth import Bounds
from pipeline.ports.objects import ObjectStore
from pipeline.ports.shadow import Finding, ShadowSample, ShadowStore
from workers.dialect import as_chat

_LOG = logging.getLogger(__name__)

#: Samples taken and recorded at once.
_CLAIM_MAX: Final = 16
#: Longer than a turn; who dies holding samples holds them this long.
_HOLD_FOR: Final = timedelta(minutes=10)
_US_PER_SECOND: Final = 1_000_000
_NO_BOUNDS: Final[Bounds] = (-1.0, 1.0)


class Read(Protocol):
    """What a reference made of one answer."""

    @property
    def x(self) -> float:
        """Return the loss as a share of 1, 0 for none."""

    @property
    def tokens(self) -> int:
        """Return how many tokens it is the mean of."""

    @property
    def bounds(self) -> Bounds:
        """Return what x could have been."""


class Reference(Protocol):
    """A model's reference, loaded to judge."""

    def read(self, endpoint: Endpoint, body: Mapping[str, Any], answer: Mapping[str, Any]) -> Read | None:
        """Return what it makes of an answer; None where it cannot say."""

    def close(self) -> None:
        """Free the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSettings:
    """Durations of a judge's habits, in seconds."""

    #: Of a worker's time, at most this share goes into judging, loading the reference included.
    time_share: float = 0.05
    #: A turn ends after this, or when nothing waits any more.
    turn_seconds: float = 30.0
    #: How often an idle worker looks for samples.
    idle_seconds: float = 15.0
    #: How often one that is never idle lets its engine run empty to look.
    busy_seconds: float = 300.0


class Judge:
    """Decides when it is time to judge, and judges. Used by the runner's thread alone."""

    def __init__(
        self,
        store: ShadowStore,
        objects: ObjectStore,
        *,
        open_reference: Callable[[str], Reference],
        models: Callable[[], Collection[str]],
        uptime_us: Callable[[], int],
        settings: JudgeSettings,
        is_alone: bool = False,
    ) -> None:
        """Judge answers by the references that `open_reference` opens, of the models that `models` names.

        With `is_alone`, the device has no room for a reference beside the engines: they are given up for a turn.
        """
        self._store = store
        self._objects = objects
        self._open_reference = open_reference
        self._models = models
        self._uptime_us = uptime_us
        self._settings = settings
        self.is_alone = is_alone
        #: Claimed for the next turn.
        self._held: tuple[ShadowSample, ...] = ()
        #: Models whose reference cannot be opened here.
        self._refused: set[str] = set()
        self._asked_us = uptime_us()
        self._rest_until_us = 0
        self._references: dict[str, Reference] = {}

    def wants_turn(self, *, is_idle: bool) -> bool:
        """Say whether samples are held that want judging; looks for some when it is time."""
        if self._held:
            return True
        now_us = self._uptime_us()
        every_seconds = self._settings.idle_seconds if is_idle else self._settings.busy_seconds
        if now_us < max(self._rest_until_us, self._asked_us + int(every_seconds * _US_PER_SECOND)):
            return False
        self._held = self._claim()
        self._asked_us = now_us
        return bool(self._held)

    def turn(self, may_go_on: Callable[[], bool]) -> None:
        """Judge what is held, and more while time and `may_go_on` allow."""
        began_us = self._uptime_us()
        until_us = began_us + int(self._settings.turn_seconds * _US_PER_SECOND)
        try:
            while self._held:
                findings = []
                for sample in self._held:
                    if not may_go_on() or self._uptime_us() >= until_us:
                        break
                    finding = self._judged(sample)
                    if finding is not None:
                        findings.append(finding)
                self._record(findings)
                is_over = not may_go_on() or self._uptime_us() >= until_us
                self._held = () if is_over else self._claim()
        finally:
            self._held = ()
            self._close()
            spent_us = self._uptime_us() - began_us
            self._rest_until_us = self._uptime_us() + int(spent_us * (1 / self._settings.time_share - 1))

    def _claim(self) -> tuple[ShadowSample, ...]:
        models = [model for model in self._models() if model not in self._refused]
        if not models:
            return ()
        try:
            return self._store.claim(models, _CLAIM_MAX, hold_for=_HOLD_FOR)
        except NightrateError as error:
            _LOG.warning("shadow_not_claimed", extra={"reason": error.code})
            return ()

    def _judged(self, sample: ShadowSample) -> Finding | None:
        """Return what was found; None where somebody else, or a later try, may do better."""
        try:
            reference = self._reference(sample.model)
        except Exception as error:  # noqa: BLE001 -- as a model that cannot be loaded for rows; its samples are left to others
            reason = error.code if isinstance(error, NightrateError) else type(error).__name__
            _LOG.warning("reference_not_opened", extra={"model": sample.model, "reason": reason})
            self._refused.add(sample.model)
            reference = None
        if reference is None:
            return None
        read = None
        try:
            read = reference.read(*as_chat(sample.endpoint, *self._row(sample)))
        except StoreUnavailableError:
            return None
        except Exception as error:  # noqa: BLE001 -- one answer that cannot be read must not stop the others; its text is not told
            _LOG.warning("answer_not_read", extra={"sample_id": sample.sample_id, "reason": type(error).__name__})
        if read is None or not read.bounds[0] <= read.x <= read.bounds[1]:
            # Out of bounds is what no number is, which a reference that overflows may say.
            return Finding(sample_id=sample.sample_id, x=None, tokens=0, bounds=_NO_BOUNDS)
        return Finding(sample_id=sample.sample_id, x=read.x, tokens=read.tokens, bounds=read.bounds)

    def _reference(self, model: str) -> Reference | None:
        if model not in self._references and model not in self._refused:
            # One at a time: two may not fit.
            self._close()
            self._references[model] = self._open_reference(model)
        return self._references.get(model)

    def _row(self, sample: ShadowSample) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the request's body and the response's."""
        shard = self._objects.read(sample.shard_key, sha256=sample.shard_sha256)
        ((_, _, body),) = decode_rows(shard, ((sample.position, sample.position + 1),))
        lines = self._objects.read(sample.part_key, sha256=sample.part_sha256).split(b"\n")
        # The part's first line is its header.
        return body, orjson.loads(lines[sample.line_no + 1])["response"]["body"]

    def _record(self, findings: list[Finding]) -> None:
        if not findings:
            return
        try:
            rollbacks = self._store.record(findings)
        except Exception as error:  # noqa: BLE001 -- rows matter more than watching them; the worker goes on
            # The samples are free again when the hold has ended.
            reason = error.code if isinstance(error, NightrateError) else type(error).__name__
            _LOG.warning("shadow_not_recorded", extra={"reason": reason})
            return
        for each in rollbacks:
            extra = {"variant": each.variant, "tier": each.tier, "reason": each.reason}
            _LOG.warning("variant_rolled_back", extra=extra)

    def _close(self) -> None:
        while self._references:
            model, reference = self._references.popitem()
            try:
                reference.close()
            except Exception:  # noqa: BLE001 -- as an engine that misbehaves to the end
                _LOG.exception("reference_not_closed", extra={"model": model})
