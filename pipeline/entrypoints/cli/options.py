"""Options that several commands share, worded once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
BatchIdArgument = Annotated[str, typer.Argument(metavar="ID", help="The batch, as `submit` and `list` print it.")]
InputFile = Annotated[str, typer.Argument(metavar="FILE", help="Requests in the OpenAI batch format; - is stdin.")]
EndpointOption = Annotated[
    str | None, typer.Option("--endpoint", help="Path every line calls. Default: the first line's url.")
]
WindowOption = Annotated[
    str | None, typer.Option("--window", help="Time to finish in, such as 90m, 24h, 7d. Default: the tier's.")
]
TierOption = Annotated[str, typer.Option("--tier", help="urgent, standard, bulk or nightly.")]
BudgetOption = Annotated[
    str | None, typer.Option("--max-cost", metavar="AMOUNT", help="Start nothing new past this charge, such as 1.50.")
]
MetaOption = Annotated[
    list[str] | None, typer.Option("--meta", metavar="KEY=VALUE", help="Note kept with the batch; repeatable.")
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="KEY=VALUE", help="What `cost report --by label:KEY` sums it up by; repeatable."),
]
PriorityOption = Annotated[
    int | None,
    typer.Option(
        "--priority", min=-100, max=100, help="Among the batches of its tenant in its tier, the highest go first."
    ),
]
IdempotencyOption = Annotated[
    str | None, typer.Option("--idempotency-key", help="Submitting again under this key returns the same batch.")
]
HoldOption = Annotated[
    str | None,
    typer.Option(
        "--hold-until",
        metavar="WHEN",
        help="Start no sooner, unless waiting would risk the deadline: 2026-11-21T22:00, 22:00, or 6h from now.",
    ),
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=0, max=64, help="Workers to start. Default: the setting `workers`.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]
TenantOption = Annotated[str, typer.Option("--tenant", metavar="ID", help="Whose it is.")]
OutputOption = Annotated[Path | None, typer.Option("--output", help="Where the results go.")]
