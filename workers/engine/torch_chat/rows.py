"""One row of the torch engine's batch: a choice of a request, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.domain.parameters import Sampling
from workers.engine.asked import Asked
from workers.engine.grammars import Matcher
from workers.engine.logprobs import TokenLogprobs
from workers.engine.text import StopFinder
from workers.engine.torch_chat.adjustments import is_adjusting


@dataclass(slots=True, eq=False)
class Row:
    """A choice in flight. Its phase is where it is held: waiting list, or slot."""

    asked: Asked
    #: Which of the request's choices.
    index: int
    seed: int
    #: Rows of an earlier one enter first.
    generation: int
    stop_finder: StopFinder | None
    matcher: Matcher | None
    #: The request's, held here because they are read at every step.
    sampling: Sampling = field(init=False)
    prompt: list[int] = field(init=False)
    ends: frozenset[int] = field(init=False)
    #: Whether the request changes logits before a token is chosen.
    is_adjusted: bool = field(init=False)
    output: list[int] = field(default_factory=list)
    #: Log-probabilities of the output, where they are asked for.
    told: list[TokenLogprobs] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sampling = self.asked.sampling
        self.prompt = self.asked.prompt
        self.ends = self.asked.ends
        self.is_adjusted = is_adjusting(self.sampling)

    @property
    def output_max(self) -> int:
        """Return how many tokens the choice may have."""
        return self.asked.output_max

    @property
    def tokens_max(self) -> int:
        """Return how long prompt and answer together may become."""
        return self.asked.tokens_max

    @property
    def sequence(self) -> list[int]:
        """Return what the cache must hold before the next token: a row that was put back has an answer begun."""
        return self.prompt + self.output if self.output else self.prompt

    def takes(self, token: int) -> bool:
        """Add `token` to the output and say whether the answer has come to its end; raises as `Matcher.accept` does."""
        self.output.append(token)
        if self.matcher is not None:
            self.matcher.accept(token)
            if self.matcher.is_complete:
                return True
        return token in self.ends or (self.stop_finder is not None and self.stop_finder.found(self.output))
