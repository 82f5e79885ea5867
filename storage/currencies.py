"""The currency of the journal: amounts in two do not sum up, so that it is not changed under way."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

from pipeline.domain.errors import ConflictError
from storage.database import Database

_LAST: Final = text("SELECT currency FROM transactions ORDER BY id DESC LIMIT 1")


def check_currency(database: Database, currency: str) -> None:
    """Raise `ConflictError` where the journal goes on in another currency; an empty one takes any."""
    found = database.run(lambda connection: connection.execute(_LAST).scalar_one_or_none())
    if found is not None and found != currency:
        raise ConflictError(
            f"the setting `currency` is {currency}, and the journal of this database is in {found}",
            hint=f'set currency = "{found}" (NIGHTRATE_CURRENCY), or begin anew with another home or database: what was '
            "charged in two currencies does not sum up",
        )
