"""The registry of variants in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson
from sqlalchemy import Connection, text

from pipeline.domain.errors import ConflictError, NotFoundError
from pipeline.domain.gates import GateVerdict
from pipeline.domain.models import DeviceClass, EngineKind, ModelSpec, Recipe
from pipeline.domain.tiers import Tier
from pipeline.ports.variants import Qualification, Tuning
from storage.database import Database
from storage.wakeups import send_wakeup

_VARIANTS: Final = text("""
    SELECT model, label, source, revision, recipe, engine, device, options FROM variants
     WHERE removed_at IS NULL ORDER BY model, label
""")

_ADD: Final = text("""
    INSERT INTO variants (name, model, label, source, revision, recipe, engine, device, options)
    VALUES (:name, :model, :label, :source, :revision, :recipe, :engine, :device, CAST(:options AS jsonb))
    ON CONFLICT (name) WHERE removed_at IS NULL DO NOTHING
""")

_REMOVE: Final = text("UPDATE variants SET removed_at = clock_timestamp() WHERE name = :name AND removed_at IS NULL")

_QUALIFY: Final = text("""
    INSERT INTO qualifications (variant, tier, verdict, gate_key, reference, relative_cost, reason, report)
    VALUES (:variant, :tier, :verdict, :gate_key, :reference, :relative_cost, :reason, CAST(:report AS jsonb))
""")

_QUALIFICATIONS: Final = text("""
    SELECT variant, tier, verdict, gate_key, reference, relative_cost, reason, report, created_at
      FROM qualifications WHERE variant = :variant ORDER BY id DESC
""")

_RETURN: Final = text("""
    -- What waits for a variant that may no longer run it goes back to the reference, which always may.
    UPDATE packs SET variant = model, hinted_at = NULL FROM (
        SELECT id FROM packs
         WHERE variant = :variant AND tier = ANY(:tiers) AND state IN ('ready', 'retryable')
           FOR NO KEY UPDATE SKIP LOCKED) AS waiting
     WHERE packs.id = waiting.id
""")

_DROP_SAMPLES: Final = text("""
    -- A watch that begins anew looks at what is answered from now on.
    UPDATE shadow_samples SET state = 'dropped', ended_at = clock_timestamp() FROM (
        SELECT id FROM shadow_samples
         WHERE model = split_part(:variant, '@', 1) AND variant = :variant AND state = 'waiting'
           AND (CAST(:gate_key AS text) IS NULL OR gate_key = :gate_key)
         ORDER BY id FOR NO KEY UPDATE) AS old
     WHERE shadow_samples.id = old.id
""")

_FORGET_WATCH: Final = text("""
    DELETE FROM watches
     WHERE variant = :variant AND tier = :tier AND (CAST(:gate_key AS text) IS NULL OR gate_key = :gate_key)
""")

_TUNE: Final = text("""
    INSERT INTO tunings (variant, gate_key, device, options, figures)
    VALUES (:variant, :gate_key, :device, CAST(:options AS jsonb), CAST(:figures AS jsonb))
    ON CONFLICT (variant, gate_key, device) DO UPDATE
       SET options = excluded.options, figures = excluded.figures, created_at = clock_timestamp()
""")

_TUNINGS: Final = text("SELECT variant, gate_key, device, options, figures, created_at FROM tunings ORDER BY id")


class VariantRepository:
    """`VariantStore` on Postgres."""

    def __init__(self, database: Database) -> None:
        """Keep the registry in `database`."""
        self._database = database

    def variants(self) -> tuple[ModelSpec, ...]:
        """Return every variant that was added and not removed."""
        rows = self._database.run(lambda connection: connection.execute(_VARIANTS).all())
        return tuple(
            ModelSpec(
                name=row.model,
                label=row.label,
                source=row.source,
                revision=row.revision,
                recipe=Recipe(row.recipe),
                engine=EngineKind(row.engine),
                device=None if row.device is None else DeviceClass(row.device),
                options=row.options,
            )
            for row in rows
        )

    def add(self, spec: ModelSpec) -> None:
        """Record a variant; raises `ConflictError` when one of that name is there."""
        arguments = {
            "name": spec.variant,
            "model": spec.name,
            "label": spec.label,
            "source": spec.source,
            "revision": spec.revision,
            "recipe": spec.recipe,
            "engine": spec.engine,
            "device": spec.device,
            "options": orjson.dumps(dict(spec.options)).decode(),
        }
        self._database.run(lambda connection: connection.execute(_ADD, arguments))
        # The same one twice is what a retry after a lost connection looks like.
        if spec not in self.variants():
            raise ConflictError(
                f"{spec.variant} was added already, as something else", hint=f"`nightrate models show {spec.variant}`"
            )

    def remove(self, variant: str) -> None:
        """Take a variant out of use; raises `NotFoundError`. What ran on it keeps its name."""

        def work(connection: Connection) -> int:
            removed = connection.execute(_REMOVE, {"name": variant}).rowcount
            connection.execute(_RETURN, {"variant": variant, "tiers": list(Tier)})
            return removed

        if not self._database.run(work):
            raise NotFoundError(f"there is no added variant {variant}", hint="`nightrate models list`")

    def qualify(self, qualifications: Sequence[Qualification]) -> None:
        """Record verdicts; the last one for a (variant, gate key, tier) holds."""
        self._database.run(lambda connection: record_qualifications(connection, qualifications))

    def qualifications(self, variant: str) -> tuple[Qualification, ...]:
        """Return what was ever said of the variant, the newest first."""
        rows = self._database.run(lambda connection: connection.execute(_QUALIFICATIONS, {"variant": variant}).all())
        return tuple(
            Qualification(
                variant=row.variant,
                tier=Tier(row.tier),
                verdict=GateVerdict(row.verdict),
                gate_key=row.gate_key,
                reference=row.reference,
                relative_cost=row.relative_cost,
                reason=row.reason,
                report=row.report,
                created_at=row.created_at,
            )
            for row in rows
        )

    def tune(self, tuning: Tuning) -> None:
        """Record the best options; replaces what was found before for the same device."""
        arguments = {
            "variant": tuning.variant,
            "gate_key": tuning.gate_key,
            "device": tuning.device,
            "options": orjson.dumps(dict(tuning.options)).decode(),
            "figures": orjson.dumps(dict(tuning.figures)).decode(),
        }
        self._database.run(lambda connection: connection.execute(_TUNE, arguments))

    def tunings(self) -> tuple[Tuning, ...]:
        """Return the last tuning of each (variant, gate key, device)."""
        rows = self._database.run(lambda connection: connection.execute(_TUNINGS).all())
        return tuple(
            Tuning(
                variant=row.variant,
                gate_key=row.gate_key,
                device=row.device,
                options=row.options,
                figures=row.figures,
                created_at=row.created_at,
            )
            for row in rows
        )


def record_qualifications(connection: Connection, qualifications: Sequence[Qualification]) -> None:
    """Record verdicts within the caller's transaction; see `VariantRepository.qualify`."""
    rows = [
        {
            "variant": each.variant,
            "tier": each.tier,
            "verdict": each.verdict,
            "gate_key": each.gate_key,
            "reference": each.reference,
            "relative_cost": each.relative_cost,
            "reason": each.reason,
            "report": orjson.dumps(dict(each.report)).decode(),
        }
        for each in qualifications
    ]
    connection.execute(_QUALIFY, rows)
    for each in qualifications:
        if each.verdict.lets_run:
            watched = {"variant": each.variant, "gate_key": each.gate_key}
            connection.execute(_DROP_SAMPLES, watched)
            connection.execute(_FORGET_WATCH, {**watched, "tier": each.tier})
        else:
            connection.execute(_RETURN, {"variant": each.variant, "tiers": [each.tier]})
    send_wakeup(connection)
