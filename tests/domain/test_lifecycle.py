from __future__ import annotations

from enum import StrEnum

import pytest

from pipeline.domain.errors import IllegalTransitionError
from pipeline.domain.lifecycle import (
    BATCH_EDGES,
    PACK_EDGES,
    WORKER_EDGES,
    BatchState,
    Edges,
    PackState,
    WorkerState,
    advance,
    sources,
    to_mermaid,
)
from tests.domain.draw_state_machines import DOCUMENT, render

TERMINALS: dict[type[StrEnum], set[StrEnum]] = {
    BatchState: {BatchState.COMPLETED, BatchState.FAILED, BatchState.EXPIRED, BatchState.CANCELLED},
    PackState: {PackState.COMMITTED, PackState.DISCARDED},
    WorkerState: {WorkerState.STOPPED, WorkerState.LOST},
}

machines = pytest.mark.parametrize(
    ("edges", "states"),
    [(BATCH_EDGES, BatchState), (PACK_EDGES, PackState), (WORKER_EDGES, WorkerState)],
    ids=["batch", "pack", "worker"],
)


@machines
def test_every_state_is_reached_from_the_first_and_leads_to_an_end(
    edges: Edges[StrEnum], states: type[StrEnum]
) -> None:
    def reached_from(start: StrEnum) -> set[StrEnum]:
        found, waiting = {start}, [start]
        while waiting:
            fresh = set(edges[waiting.pop()]) - found
            found |= fresh
            waiting += fresh
        return found

    assert reached_from(next(iter(states))) == set(states)
    for state in states:
        assert reached_from(state) & TERMINALS[states], state


@machines
def test_the_terminal_states_are_exactly_these(edges: Edges[StrEnum], states: type[StrEnum]) -> None:
    assert {state for state in states if not edges[state]} == TERMINALS[states]
    assert {state for state in states if getattr(state, "is_terminal")} == TERMINALS[states]  # noqa: B009 -- StrEnum has no such name


@machines
def test_advancing_follows_the_edges_and_refuses_everything_else(edges: Edges[StrEnum], states: type[StrEnum]) -> None:
    for current in states:
        for target in states:
            if target in edges[current]:
                assert advance(edges, current, target) is target
            else:
                with pytest.raises(IllegalTransitionError, match=f"cannot go from {current} to {target}"):
                    advance(edges, current, target)


@machines
def test_the_sources_of_a_state_are_those_with_an_edge_to_it(edges: Edges[StrEnum], states: type[StrEnum]) -> None:
    for target in states:
        assert set(sources(edges, target)) == {state for state in states if target in edges[state]}


@machines
def test_every_edge_says_its_cause_in_words_a_diagram_can_show(edges: Edges[StrEnum], states: type[StrEnum]) -> None:
    drawn = to_mermaid(edges)

    for state in states:
        for target, cause in edges[state].items():
            assert cause.strip() == cause
            assert cause
            # A second colon or a semicolon would end the label.
            assert not set(cause) & set(":;\n")
            assert f"    {state} --> {target}: {cause}\n" in drawn


def test_the_document_is_drawn_from_the_edges() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == render(), "run `python -m tests.domain.draw_state_machines`"
    for edges in (BATCH_EDGES, PACK_EDGES, WORKER_EDGES):
        assert f"```mermaid\n{to_mermaid(edges)}```\n" in render()
