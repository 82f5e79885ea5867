"""`config`: every setting, what it is now, where that came from, and what it means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson
from pipeline.entrypoints.cli.talk import print_document, print_line

if TYPE_CHECKING:  # settings are read inside the command
    from pipeline.config import Settings


def config(*, as_json: AsJson = False) -> int:
    """Show every setting: its value, where it came from, and what it means."""
    from pipeline.config import load_settings

    settings = load_settings()
    rows = describe(settings)
    if as_json:
        print_document(rows)
        return ExitCode.OK
    name_width = max(len(str(row["name"])) for row in rows)
    for row in rows:
        print_line(f"{str(row['name']).ljust(name_width)}  {row['text']}  ({row['source']})")
        print_line(f"{' ' * name_width}  {row['description']}")
    print_line("")
    print_line("Set them as NIGHTRATE_<NAME> in the environment, or by name in nightrate.toml.")
    print_line(f"Models built in: {', '.join(_built_in())}.")
    return ExitCode.OK


def describe(settings: Settings) -> list[dict[str, object]]:
    """Return a row for each setting; no password in any of them."""
    import json

    rows: list[dict[str, object]] = []
    for name, field in type(settings).model_fields.items():
        value = _shown(settings, name)
        rows.append(
            {
                "name": name,
                "value": value,
                "text": "not set" if value is None else json.dumps(value) if isinstance(value, dict) else str(value),
                "source": _source(settings, name),
                "variable": f"NIGHTRATE_{name.upper()}",
                "description": field.description,
            }
        )
    return rows


def masked(url: str) -> str:
    """Return a URL with its password as `***`."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        if parts.password is None:
            return url
        before, _, host = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{before.partition(':')[0]}:***@{host}").geturl()
    except ValueError:
        return "***"


def _shown(settings: Settings, name: str) -> object:
    from pydantic import BaseModel, SecretStr

    value = getattr(settings, name)
    if isinstance(value, SecretStr):
        # Of a URL only the password is one.
        secret = value.get_secret_value()
        return masked(secret) if name.endswith("_url") else secret and "***"
    if isinstance(value, (dict, BaseModel)):
        # Tables as nightrate.toml has them, without what nobody set.
        return settings.model_dump(mode="json", by_alias=True, include={name}, exclude_unset=True).get(name, {})
    if value is None or isinstance(value, (bool, int, float, list)):
        return value
    return masked(str(value)) if name.endswith("url") else str(value)


def _source(settings: Settings, name: str) -> str:
    import os

    variable = f"NIGHTRATE_{name.upper()}"
    if any(given.upper() == variable for given in os.environ):
        return f"environment: {variable}"
    return "file: nightrate.toml" if name in settings.model_fields_set else "default"


def _built_in() -> list[str]:
    from pipeline.domain.models import BUILT_IN

    return list(BUILT_IN)
