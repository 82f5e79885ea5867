"""Measure how much of a trace's shared prefixes a cache finds when rows run in intake's order.

    python -m tests.bench.bench_prefix_order [--data FOLDER]

Prints one JSON object. `--data` is a folder with `conversation_trace.jsonl` of Mooncake (requests as the hashes of
their blocks of 512 tokens); without it conversations are made up. The cache keeps the blocks used last; a block is hit
when all blocks of the request before it are. An order is good when it reaches what a cache without end would.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from pipeline.submit.order import locality_order
from tests.bench.machine import machine

TRACE = "conversation_trace.jsonl"
#: Blocks that fit beside an 8B model on a card of 80 GB.
BLOCKS = 1200
SIZES = (300, BLOCKS, 5000, 20_000)
SHARE_WANTED = 0.97
BLOCK_TOKENS = 512
#: Blocks that a key tells apart: the short one and the long one of intake, and longer ones that it might have.
KEYS = ((1, 1), (1, 2), (1, 4), (2, 8), (4, 16), (8, 64))

Request = tuple[int, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; exit 1 where the order by the whole prefix misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--requests", type=int, default=12_000, help="how many are made up")
    options = parser.parse_args(arguments)
    requests = recorded(options.data / TRACE) if options.data else made_up(options.requests, seed=0)
    ideal = hit_share(requests, blocks=sum(map(len, requests)))
    orders = {"as they came": list(range(len(requests))), "by the whole prefix": by_whole_prefix(requests)}
    for short, long in KEYS:
        orders[f"intake's, keys of {short} and {long} blocks"] = by_keys(requests, short=short, long=long)
    rows = [row_of(name, [requests[at] for at in order], ideal) for name, order in orders.items()]
    is_met = share_of(rows, "by the whole prefix") >= SHARE_WANTED
    report: dict[str, Any] = {
        "bench": "prefix_order",
        "trace": TRACE if options.data else "made up",
        "requests": len(requests),
        "blocks": sum(map(len, requests)),
        "ideal_share": round(ideal, 4),
        "wanted_of_ideal": SHARE_WANTED,
        "is_met_by_whole_prefix": is_met,
        "is_met_by_intake": share_of(rows, "intake's, keys of 1 and 1 blocks") >= SHARE_WANTED,
        "orders": rows,
        "machine": machine(),
    }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 0 if is_met else 1


def recorded(path: Path) -> list[Request]:
    """Return the requests of a trace, as blocks."""
    return [tuple(json.loads(line)["hash_ids"]) for line in path.read_text(encoding="utf-8").splitlines()]


def made_up(wanted: int, *, seed: int) -> list[Request]:
    """Return requests of conversations that go on: each turn has all blocks of the one before, and more."""
    random = Random(seed)
    fresh = iter(range(100, sys.maxsize))
    systems = [tuple(next(fresh) for _ in range(random.randint(1, 4))) for _ in range(20)]
    open_ones: list[Request] = []
    found: list[Request] = []
    while len(found) < wanted:
        if open_ones and random.random() < 0.6:
            before = open_ones.pop(random.randrange(len(open_ones)))
        else:
            before = random.choice(systems)
        request = before + tuple(next(fresh) for _ in range(random.randint(1, 12)))
        found.append(request)
        open_ones.append(request)
        del open_ones[:-3000]
    return found


def by_whole_prefix(requests: Sequence[Request]) -> list[int]:
    """Return the order of the whole tuples of blocks: a walk of the tree of prefixes, depth first."""
    return sorted(range(len(requests)), key=lambda at: requests[at])


def by_keys(requests: Sequence[Request], *, short: int, long: int) -> list[int]:
    """Return intake's own order with keys that tell so many blocks apart, 1 being more than intake reads."""
    # From 1, since intake takes 0 for a prefix that no other row has.
    halves: list[dict[Request, int]] = [{}, {}]
    prefixes = np.array(
        [
            halves[0].setdefault(request[:short], 1 + len(halves[0])) << 32
            | halves[1].setdefault(request[:long], 1 + len(halves[1]))
            for request in requests
        ],
        dtype=np.uint64,
    )
    lengths = np.array([len(request) * BLOCK_TOKENS for request in requests], dtype=np.uint32)
    return [int(at) for at in locality_order(prefixes, lengths)]


def hit_share(requests: Iterable[Request], *, blocks: int) -> float:
    """Return the share of all blocks that a cache of so many finds, one request after the other."""
    cache: OrderedDict[int, None] = OrderedDict()
    hits = total = 0
    for request in requests:
        total += len(request)
        is_prefix = True
        for block in request:
            is_prefix = is_prefix and block in cache
            hits += is_prefix
            cache[block] = None
            cache.move_to_end(block)
        while len(cache) > blocks:
            cache.popitem(last=False)
    return hits / total


def row_of(name: str, requests: Sequence[Request], ideal: float) -> dict[str, Any]:
    """Return the figures of one order."""
    shares = {blocks: hit_share(requests, blocks=blocks) for blocks in SIZES}
    return {
        "order": name,
        "hit_share": {str(blocks): round(share, 4) for blocks, share in shares.items()},
        "of_ideal": round(shares[BLOCKS] / ideal, 4),
        "prefill_of_ideal": round((1 - shares[BLOCKS]) / (1 - ideal), 3),
    }


def share_of(rows: Iterable[dict[str, Any]], name: str) -> float:
    """Return how much of the ideal an order reaches."""
    return next(float(row["of_ideal"]) for row in rows if row["order"] == name)


if __name__ == "__main__":
    sys.exit(main())
