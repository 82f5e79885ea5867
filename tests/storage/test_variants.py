from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ConflictError, NotFoundError
from pipeline.domain.gates import GateVerdict, gate_key
from pipeline.domain.ids import WorkerId, new_pack_id, new_worker_id
from pipeline.domain.models import DeviceClass, EngineKind, ModelSpec, Recipe
from pipeline.domain.tiers import Tier
from pipeline.ports.cycle import CyclePlan, PackDraft, Serving, SliceDraft
from pipeline.ports.packs import WorkerRegistration
from pipeline.ports.variants import Qualification, Tuning
from storage.variants import VariantRepository
from tests.storage.world import World

INT8 = ModelSpec(
    name="chat",
    label="int8",
    source="/models/chat",
    engine=EngineKind.OPENVINO,
    recipe=Recipe.INT8_WEIGHTS,
    revision="abc",
    device=DeviceClass.CPU,
    options={"slots": 64, "ignore_end": True},
)


def registry(world: World) -> VariantRepository:
    return VariantRepository(world.database)


def said(
    tier: Tier, verdict: GateVerdict, *, key: str | None = "key-1", cost: float | None = 0.5, variant: str = "chat@int8"
) -> Qualification:
    return Qualification(
        variant=variant,
        tier=tier,
        verdict=verdict,
        gate_key=key,
        relative_cost=cost,
        reason="because",
        reference="chat",
    )


def serve(world: World, **variants: str) -> WorkerId:
    worker_id = new_worker_id()
    world.workers.register(
        WorkerRegistration(
            worker_id=worker_id,
            pool="local",
            market="spot",
            host="here",
            pid=1,
            variants={name.replace("_", "@"): key for name, key in variants.items()},
            rate_micros_per_hour=0,
            currency="USD",
        )
    )
    return worker_id


def servings(world: World) -> Sequence[Serving]:
    (pool,) = world.cycles.snapshot().pools
    return pool.servings


def test_a_variant_is_kept_as_it_was_added(world: World) -> None:
    registry(world).add(INT8)

    assert registry(world).variants() == (INT8,)


def test_the_same_variant_twice_is_one_and_another_under_its_name_is_refused(world: World) -> None:
    registry(world).add(INT8)
    registry(world).add(INT8)

    with pytest.raises(ConflictError, match="chat@int8"):
        registry(world).add(ModelSpec(name="chat", label="int8", source="/elsewhere", engine=EngineKind.TORCH))
    assert registry(world).variants() == (INT8,)


def test_a_removed_variant_makes_room_for_another_of_its_name(world: World) -> None:
    registry(world).add(INT8)
    registry(world).remove("chat@int8")

    assert registry(world).variants() == ()
    with pytest.raises(NotFoundError):
        registry(world).remove("chat@int8")
    registry(world).add(INT8)


def test_a_reference_serves_every_tier_and_a_variant_those_it_was_accepted_for(world: World) -> None:
    serve(world, chat="", chat_int8="key-1")
    assert servings(world) == (Serving(variant="chat", model="chat", tiers=frozenset(Tier)),)

    registry(world).qualify(
        [
            said(Tier.BULK, GateVerdict.ACCEPTED),
            said(Tier.NIGHTLY, GateVerdict.ACCEPTED, cost=0.4),
            said(Tier.STANDARD, GateVerdict.UNDECIDED),
            said(Tier.URGENT, GateVerdict.REJECTED),
        ]
    )

    assert servings(world)[1] == Serving(
        variant="chat@int8", model="chat", tiers=frozenset({Tier.BULK, Tier.NIGHTLY}), relative_cost=0.4
    )


def test_a_verdict_holds_for_its_key_alone(world: World) -> None:
    serve(world, chat="", chat_int8="key-2")
    registry(world).qualify([said(Tier.BULK, GateVerdict.ACCEPTED, key="key-1")])

    assert [serving.variant for serving in servings(world)] == ["chat"]


def test_the_last_word_holds_whoever_said_it(world: World) -> None:
    serve(world, chat="", chat_int8="key-1")
    registry(world).qualify([said(Tier.BULK, GateVerdict.REJECTED)])
    registry(world).qualify([said(Tier.BULK, GateVerdict.ALLOWED, key=None, cost=None)])
    assert servings(world)[1].relative_cost == 0.0

    registry(world).qualify([said(Tier.BULK, GateVerdict.REJECTED, key=None, cost=None)])
    assert len(servings(world)) == 1

    registry(world).qualify([said(Tier.BULK, GateVerdict.ACCEPTED)])
    assert servings(world)[1].relative_cost == 0.5


def waiting_pack(world: World, variant: str) -> None:
    batch = world.admit(4, model="chat")
    (shard,) = world.shard_ids(batch)
    pack = PackDraft(
        pack_id=new_pack_id(),
        pool="local",
        model="chat",
        variant=variant,
        endpoint=Endpoint.CHAT_COMPLETIONS,
        tier=Tier.STANDARD,
        ordinal=0.0,
        predicted_seconds=1.0,
        slices=(SliceDraft(batch_id=batch, shard_id=shard, row_start=0, row_stop=4),),
    )
    world.cycles.dispatch(world.leadership.epoch, CyclePlan(packs=(pack,), standings=()))


def test_packs_that_wait_for_a_rejected_variant_go_to_the_reference(world: World) -> None:
    waiting_pack(world, "chat@int8")

    registry(world).qualify([said(Tier.BULK, GateVerdict.REJECTED)])
    assert world.scalars("SELECT variant FROM packs") == ["chat@int8"]
    registry(world).qualify([said(Tier.STANDARD, GateVerdict.REJECTED)])
    assert world.scalars("SELECT variant FROM packs") == ["chat"]


def test_packs_of_a_variant_that_nobody_serves_any_more_go_to_the_reference(world: World) -> None:
    waiting_pack(world, "chat@int8")
    both = serve(world, chat="", chat_int8="key-1")
    world.cycles.advance_batches(world.leadership.epoch)
    assert world.scalars("SELECT variant FROM packs") == ["chat@int8"]

    world.workers.serve(both, {"chat": ""})
    world.cycles.advance_batches(world.leadership.epoch)

    assert world.scalars("SELECT variant FROM packs") == ["chat"]
    lease = world.packs.lease(both, pool="local", variants=["chat"])
    assert lease is not None
    assert (lease.model, lease.variant) == ("chat", "chat")


def test_a_tuning_is_replaced_by_the_next_for_its_device(world: World) -> None:
    first = Tuning(variant="chat", gate_key="", device="cpu x2", options={"slots": 64})
    registry(world).tune(first)
    registry(world).tune(Tuning(variant="chat", gate_key="", device="cpu x8", options={"slots": 256}))
    registry(world).tune(Tuning(variant="chat", gate_key="", device="cpu x2", options={"slots": 128}))

    assert [(each.device, each.options) for each in registry(world).tunings()] == [
        ("cpu x2", {"slots": 128}),
        ("cpu x8", {"slots": 256}),
    ]


def test_a_gate_key_changes_with_each_of_its_parts() -> None:
    parts = {"revision": "a", "recipe": "b", "engine": "c", "engine_version": "d", "numerics": "e"}

    keys = {gate_key(**parts)} | {gate_key(**(parts | {name: "x"})) for name in parts}

    assert len(keys) == len(parts) + 1
