"""An engine's counters as it counts: a few additions a step, and a record when somebody asks."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.ports.meters import EngineMeters


@dataclass(slots=True)
class Counters:
    """Counters of an engine whose batch has slots; fields are those of `EngineMeters`."""

    steps: int = 0
    slot_steps_busy: int = 0
    slot_steps: int = 0

    def note_step(self, busy: int, slots: int) -> None:
        """Count a pass over `busy` rows where `slots` could have been."""
        self.steps += 1
        self.slot_steps_busy += busy
        self.slot_steps += slots

    def meters(
        self,
        *,
        tokens_prefilled: int | None = None,
        tokens_cached: int | None = None,
        tokens_generated: int | None = None,
        tokens_padding: int | None = None,
    ) -> EngineMeters:
        """Return the record, with the tokens that the engine knows of."""
        return EngineMeters(
            engine_steps=self.steps,
            slot_steps_busy=self.slot_steps_busy,
            slot_steps=self.slot_steps,
            tokens_prefilled=tokens_prefilled,
            tokens_cached=tokens_cached,
            tokens_generated=tokens_generated,
            tokens_padding=tokens_padding,
        )
