"""Charging: what a tenant pays for what a batch had, at the price that it was quoted when it was submitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipeline.domain.costs.prices import PICOS_PER_MICRO

#: A charge of what it cost.
PAR_PPM: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeTerms:
    """A price that goes by the cost, or by the token. Charges are rounded down, to the tenant's favour."""

    #: Millionths of the cost; counts where there is no price per token.
    multiplier_ppm: int = PAR_PPM
    #: A token's price in 10^-12 of a unit; both or none.
    input_token_picos: int | None = None
    output_token_picos: int | None = None

    @property
    def is_by_token(self) -> bool:
        """Say whether tokens have a price, and the cost does not matter."""
        return self.input_token_picos is not None

    def charge_micros(self, *, effective_micros: int, input_tokens: int, output_tokens: int) -> int:
        """Return what is charged for work that cost so much."""
        if self.input_token_picos is None or self.output_token_picos is None:
            return effective_micros * self.multiplier_ppm // PAR_PPM
        picos = input_tokens * self.input_token_picos + output_tokens * self.output_token_picos
        return picos // PICOS_PER_MICRO


#: A batch pays what it cost.
AT_COST: Final = ChargeTerms()
