"""`submit --promise`: a batch that enters with its deadline promised, or not at all."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pipeline.domain.errors import RefusedError
from pipeline.domain.promises import Promise
from pipeline.domain.reasons import Reason
from pipeline.entrypoints.cli.figures import money

if TYPE_CHECKING:  # the stores are imported by the command that opens them
    from pipeline.ports.batches import BatchView
    from pipeline.ports.desk import Desk, Terms
    from pipeline.submit.inputs import Input
    from scheduler.admission import Admission, Offer

_POLL_SECONDS: Final = 0.1
#: Added to a window that could be promised now, because it is asked for a moment later.
_LATER: Final = 1.1
_CENT_MICROS: Final = 10_000


class NotAdmittedError(RefusedError):
    """The batch cannot be promised what was asked; nothing of it runs."""

    code = "not_admitted"

    def __init__(
        self, message: str, *, hint: str | None = None, batch_id: str | None = None, offers: Sequence[object] = ()
    ) -> None:
        """Keep the terms that would be accepted, and which batch was made and has failed (None: none was)."""
        super().__init__(message, hint=hint)
        self.details = {"batch_id": batch_id, "offers": list(offers)}


def check_admission(desk: Desk, source: Input, terms: Terms) -> None:
    """Raise `NotAdmittedError` for a file that would be refused now; nothing is stored.

    A file with wrong lines passes: it is refused with all of them when it is taken in. So does one that its idempotency
    key has submitted before: it has its answer, or gets it, and must not be refused for the room that it takes itself.
    """
    from pipeline.domain.windows import parse_window
    from pipeline.ports.batches import Rejected
    from scheduler.admission import judge_admission

    if terms.idempotency_key and desk.may_know(terms.idempotency_key):
        return
    windows = {terms.window: parse_window(terms.window).total_seconds()}
    found = desk.quote(source.path, source.endpoint, windows=windows)
    if isinstance(found, Rejected):
        return
    if found.survey.rows_total == found.survey.rows_refused + found.survey.rows_duplicate:
        # No row is left to promise anything to.
        return
    admission = judge_admission(found.tiers, tier=terms.tier, budget_micros=terms.budget_micros)
    if not admission.is_likely:
        raise _refused(admission, terms)


def await_promise(desk: Desk, view: BatchView) -> BatchView:
    """Return the batch once the scheduler has answered; raises `NotAdmittedError` where it declined."""
    while view.promise is Promise.PENDING and not view.state.is_terminal:
        time.sleep(_POLL_SECONDS)
        view = desk.get(view.batch_id)
    if view.reason is Reason.PROMISE_DECLINED:
        message = f"{view.batch_id} was refused: {' '.join(error.message for error in view.errors)}"
        raise NotAdmittedError(message, hint="`nightrate quote` tells what could be promised", batch_id=view.batch_id)
    if view.promise is Promise.DECLINED:
        # Made before under the same key, without the condition.
        message = f"{view.batch_id} runs already, and its deadline is not promised"
        raise NotAdmittedError(message, batch_id=view.batch_id)
    return view


def _refused(admission: Admission, terms: Terms) -> NotAdmittedError:
    asked = admission.asked
    if asked is None:
        message = f"no live worker serves this to tier {terms.tier}, so nothing can be promised"
    else:
        said = []
        if asked.window_seconds is not None:
            said.append(f"the window of {terms.window} cannot be promised now")
        if asked.budget_micros is not None and terms.budget_micros is not None:
            budget = money(terms.budget_micros, asked.currency)
            said.append(f"it may cost more than {budget}")
        message = f"not accepted in tier {terms.tier}: {' and '.join(said)}"
    offers = (*((asked,) if asked is not None else ()), *admission.others)
    hint = "accepted now: " + ", or ".join(_said(offer) for offer in offers) if offers else None
    return NotAdmittedError(message, hint=hint, offers=[_document(offer, terms) for offer in offers])


def _said(offer: Offer) -> str:
    options = [f"--tier {offer.tier}"]
    if offer.window_seconds is not None:
        options.append(f"--window {_window(offer.window_seconds)}")
    if offer.budget_micros is not None:
        options.append(f"--max-cost {_amount(offer.budget_micros)}")
    return " ".join(options)


def _document(offer: Offer, terms: Terms) -> dict[str, object]:
    return {
        "tier": str(offer.tier),
        "window": terms.window if offer.window_seconds is None else _window(offer.window_seconds),
        "max_cost_micros": terms.budget_micros if offer.budget_micros is None else offer.budget_micros,
        "currency": offer.currency,
    }


def _window(seconds: float) -> str:
    """Return whole minutes, some more than could be promised this moment."""
    return f"{math.ceil(seconds * _LATER / 60) + 1}m"


def _amount(micros: int) -> str:
    step = _CENT_MICROS if micros >= _CENT_MICROS else 1
    rounded = -(-micros // step) * step
    return f"{rounded // 1_000_000}.{rounded % 1_000_000:06d}".rstrip("0").rstrip(".")
