"""Measure how much of a trace's shared prefixes a cache finds when rows run in intake's order.

    python -m tests.bench.bench_prefix_order [--data FOLDER]

Prints one JSON object. `--data` is a folder with `conversation_trace.jsonl` of Mooncake (requests as the hashes of
their blocks of 512 tokens), at most one folder down; without it conversations are made up. Each block becomes a text
of its own, a request one message of its blocks' texts, and the order is what intake's own keys, sorting and cuts make
of them. The cache keeps the blocks used last; a block is hit when all blocks of the request before it are. An order is
good when it reaches what a cache without end would.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.limits import SHARD_ROWS_MAX
from pipeline.submit.order import Locality, cuts, locality_order
from pipeline.submit.prefixes import levels_of
from pipeline.submit.spool import RaggedRows
from tests.bench.machine import machine

TRACE = "conversation_trace.jsonl"
#: Blocks that fit beside an 8B model on a card of 80 GB.
BLOCKS = 1200
SIZES = (300, BLOCKS, 5000, 20_000)
SHARE_WANTED = 0.97
BLOCK_TOKENS = 512
#: Bytes of a block's text. English has 4 to 5 a token; none is a multiple of the levels' steps, which would flatter.
TEXT_BYTES = (2203, 1601, 2657)
#: Rows that one worker runs with a cache of its own, which is empty when it begins.
PIECES = (SHARD_ROWS_MAX, 512, 64)

Request = tuple[int, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; exit 1 where the order by the whole prefix misses its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--requests", type=int, default=12_000, help="how many are made up")
    options = parser.parse_args(arguments)
    requests = recorded(trace_in(options.data)) if options.data else made_up(options.requests, seed=0)
    ideal = hit_share(requests, blocks=sum(map(len, requests)))
    by_length = sorted(range(len(requests)), key=lambda at: len(requests[at]))
    orders = {
        "as they came": list(range(len(requests))),
        "by length": by_length,
        "by the whole prefix": by_whole_prefix(requests),
    }
    found = {text_bytes: intakes_order(requests, text_bytes=text_bytes) for text_bytes in TEXT_BYTES}
    for text_bytes, order in found.items():
        orders[f"intake's, {text_bytes} bytes a block"] = order.permutation.tolist()
    rows = [row_of(name, [requests[at] for at in order], ideal) for name, order in orders.items()]
    usual = found[TEXT_BYTES[0]]
    ordered = [requests[at] for at in usual.permutation.tolist()]
    pieces = [in_pieces(ordered, usual, rows_max, ideal) for rows_max in PIECES]
    shares = [row["of_ideal"] for row in rows if row["order"].startswith("intake")]
    is_met = min(shares) >= SHARE_WANTED
    report: dict[str, Any] = {
        "bench": "prefix_order",
        "trace": TRACE if options.data else "made up",
        "requests": len(requests),
        "blocks": sum(map(len, requests)),
        "ideal_share": round(ideal, 4),
        "wanted_of_ideal": SHARE_WANTED,
        "is_met_by_intake": is_met,
        "orders": rows,
        "in_pieces": pieces,
        "machine": machine(),
    }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 0 if is_met else 1


def trace_in(folder: Path) -> Path:
    """Return the trace in `folder`, or one folder down."""
    found = [*folder.glob(TRACE), *folder.glob(f"*/{TRACE}")]
    if not found:
        sys.exit(f"there is no {TRACE} in {folder}, nor in a folder of it")
    return found[0]


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


def intakes_order(requests: Sequence[Request], *, text_bytes: int) -> Locality:
    """Return the order that intake brings the requests in, as conversations of one message each."""
    texts = ["".join(text_of_block(block, text_bytes) for block in request) for request in requests]
    bodies = ({"messages": [{"role": "user", "content": text}]} for text in texts)
    return locality_of(bodies, list(map(len, texts)))


def locality_of(bodies: Iterable[Mapping[str, Any]], lengths: Sequence[int]) -> Locality:
    """Return the order that intake brings chat requests of these lengths in."""
    levels = levels_of(Endpoint.CHAT_COMPLETIONS)
    firsts, further = zip(*map(levels, bodies), strict=True)
    counts = np.array(list(map(len, further)), dtype=np.uint16)
    rows = RaggedRows(
        counts=counts,
        starts=np.cumsum(counts, dtype=np.uint32) - counts,
        values=np.array(list(chain.from_iterable(further)), dtype=np.uint32),
    )
    return locality_order(np.array(firsts, dtype=np.uint32), rows, np.array(lengths, dtype=np.uint32))


def text_of_block(block: int, text_bytes: int) -> str:
    """Return a text like no other block's, from its beginning."""
    word = f"{block:x} "
    return (word * (text_bytes // len(word) + 1))[:text_bytes]


def in_pieces(requests: Sequence[Request], order: Locality, rows_max: int, ideal: float) -> dict[str, Any]:
    """Return how much of the ideal remains where each piece of the order meets an empty cache."""
    lengths = np.ones(len(requests), dtype=np.uint32)
    whole = cuts(lengths, order.parted_at, rows_max=rows_max, bytes_max=len(requests))
    blind = cuts(lengths, np.zeros_like(order.parted_at), rows_max=rows_max, bytes_max=len(requests))
    return {
        "rows_max": rows_max,
        "pieces": len(whole),
        "of_ideal": round(share_in(requests, whole) / ideal, 4),
        "pieces_cut_blindly": len(blind),
        "of_ideal_cut_blindly": round(share_in(requests, blind) / ideal, 4),
    }


def share_in(requests: Sequence[Request], pieces: Sequence[tuple[int, int]]) -> float:
    """Return the share of all blocks that caches find which are empty at the beginning of each piece."""
    hits = 0.0
    for start, stop in pieces:
        piece = requests[start:stop]
        hits += hit_share(piece, blocks=BLOCKS) * sum(map(len, piece))
    return hits / sum(map(len, requests))


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


if __name__ == "__main__":
    sys.exit(main())
