"""One random sequence of operations against the model and another implementation: they must agree.

To hold an implementation to the protocol, write a `World` around it and call `check_pack_store`:

    def test_postgres_keeps_the_protocol(database_url):
        for seed in range(50):
            check_pack_store(lambda setup: PostgresWorld(database_url, setup), seed)

What a `World` owes:

* It holds the batches of `Setup`, all in progress, with shards numbered from 0; nobody has leased or
  registered anything yet. `batch_id` and `shard_id` translate the names the driver uses.
* Time stands still unless the driver moves it: no lease expires and no worker falls silent by itself
  (long leases), and a waiting pack may be leased at once (reset any pause after a failure).
* `expire` and `silence` put a lease's expiry or a worker's last sign of life in the past; `rescue` then
  does all that the scheduler does about both.
* `withdraw` cancels the batch and discards the waiting packs that have no rows left; `convict` runs
  the convictor until nothing is convicted.
* `observe` returns what `Observation` says. Only discarded packs hide their rows, because a bisected
  pack may have let go of them; ids of packs never show, because the children of a bisection are named
  by the implementation. Entries of zero are left out.

Between siblings of one ordinal any order of leases is right: the model follows the other one's choice.
A refusal for a lost lease must be `LeaseLostError`; any other exception counts as a plain refusal. A
worker that is lost may be refused a lease by None or by `LeaseLostError`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from tests.simulation.driver import DisagreementError, Driver
from tests.simulation.layers import REAL, Layers
from tests.simulation.model_world import ModelWorld
from tests.simulation.worlds import Observation, Setup, World

__all__ = ["DisagreementError", "Observation", "Setup", "World", "check_pack_store"]

_OPERATIONS: Final = 60


def check_pack_store(
    make_world: Callable[[Setup], World], seed: int, *, layers: Layers = REAL, operations: int = _OPERATIONS
) -> None:
    """Drive the model and `make_world`'s world through one seed; raise `DisagreementError` where they differ."""
    rng = random.Random(seed)
    batches = {name: tuple(rng.randrange(1, 6) for _ in range(rng.randrange(1, 3))) for name in "abc"}
    setup = Setup(batches)
    Driver(seed, rng, setup, ModelWorld(setup.batches, layers), make_world(setup)).run(operations)
