"""The counter at which commands about batches stand: the stack of this machine, or a server that `--url` names."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Final, ParamSpec, get_type_hints

import typer

from pipeline.domain.errors import UsageError
from pipeline.entrypoints.cli.talk import say

if TYPE_CHECKING:  # commands open one of the desks, and import what that one needs
    from pipeline.ports.desk import Desk

UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Ask this server instead of the local stack. Default: NIGHTRATE_URL."),
]
ApiKeyOption = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        help="Key for the server; others on this machine can see arguments, so rather set NIGHTRATE_API_KEY.",
    ),
]
InsecureOption = Annotated[
    bool,
    typer.Option("--insecure-http", help="Allow http:// to other machines: the key and all data go in clear text."),
]
_OPTIONS: Final[dict[str, tuple[object, object]]] = {
    "url": (UrlOption, None),
    "api_key": (ApiKeyOption, None),
    "insecure_http": (InsecureOption, False),
}

_Parameters = ParamSpec("_Parameters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """Where a command is to ask."""

    url: str | None
    api_key: str | None = field(repr=False)
    insecure_http: bool

    @contextmanager
    def desk(self) -> Iterator[Desk]:
        """Open the desk: the server's that the options or else the settings name, without any the local stack's."""
        from pipeline.config import load_settings

        settings = load_settings()
        url = settings.url if self.url is None else self.url
        if url:
            from infra.remote.desk import open_desk

            key = settings.api_key.get_secret_value() if self.api_key is None and settings.api_key else self.api_key
            with open_desk(
                url,
                key or "",
                ca_file=settings.ca_file,
                is_clear_text_allowed=self.insecure_http or settings.insecure_http,
                say=lambda text: say(f"nightrate: {text}"),
                on_sent=_tell_sent if sys.stderr.isatty() else None,
            ) as remote:
                yield remote
            return
        if self.api_key is not None or self.insecure_http:
            option = "--insecure-http" if self.api_key is None else "--api-key"
            raise UsageError(f"{option} is for a server, and none is named", hint="add --url, or set NIGHTRATE_URL")
        from pipeline.app.desk import LocalDesk
        from pipeline.entrypoints.cli.connection import connected

        with connected() as stack:
            yield LocalDesk(stack)


def at_counter(command: Callable[Concatenate[Counter, _Parameters], int]) -> Callable[..., int]:
    """Give a command the options that say where its counter is; its first parameter becomes the counter."""
    signature = inspect.signature(command, eval_str=True)
    _first, *rest = signature.parameters.values()
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _OPTIONS.items()
    ]

    @functools.wraps(command)
    def at_its_counter(
        *given: Any,  # noqa: ANN401 -- the command's own
        url: str | None = None,
        api_key: str | None = None,
        insecure_http: bool = False,
        **options: Any,  # noqa: ANN401 -- the command's own
    ) -> int:
        return command(Counter(url=url, api_key=api_key, insecure_http=insecure_http), *given, **options)

    hints = get_type_hints(command, include_extras=True)
    at_its_counter.__annotations__ = hints | {name: annotation for name, (annotation, _) in _OPTIONS.items()}
    at_its_counter.__signature__ = signature.replace(parameters=[*rest, *added])  # type: ignore[attr-defined]  # as inspect has it
    return at_its_counter


def _tell_sent(sent_bytes: int, total_bytes: int) -> None:
    """Draw how far an upload is over the line that drew it before."""
    from pipeline.entrypoints.cli.figures import size

    end = "\n" if sent_bytes >= total_bytes else ""
    sys.stderr.write(f"\r\x1b[2Ksent {size(sent_bytes)} of {size(total_bytes)}{end}")
    sys.stderr.flush()
