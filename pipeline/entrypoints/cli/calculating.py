"""The commands of `nightrate cost calc`: their flags are made from what each calculator asks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from pipeline.domain.errors import UsageError
from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson, ForceOption
from pipeline.entrypoints.cli.talk import print_document, print_facts, print_line, print_table, say
from pipeline.report.calculators.catalogue import CALCULATORS, Calculator
from pipeline.report.calculators.fields import Described, Kind, fields_of, heads_of, written

_AsCsv = Annotated[bool, typer.Option("--csv", help="Inputs and answers as CSV on stdout.")]
_Xlsx = Annotated[Path | None, typer.Option("--xlsx", metavar="FILE", help="Write a sheet that goes on calculating.")]
_OUTPUTS: Final = ("as_json", "as_csv", "xlsx", "force")
#: Left to the documents: a terminal is only so wide.
_DETAILS: Final = frozenset({"gpus_per_copy", "arithmetic_used_percent", "is_measured", "price_per_hour"})
_MONTHS_APART: Final = 12
_FILE_BYTES_MAX: Final = 64 * 1024


def calculator_commands() -> typer.Typer:
    """Return a command for each calculator."""
    app = typer.Typer()
    for calculator in CALCULATORS.values():
        app.command(calculator.name)(_command(calculator))
    return app


def _calculate(
    calculator: Calculator, texts: Mapping[str, str], *, as_json: bool, as_csv: bool, xlsx: Path | None, force: bool
) -> int:
    from pipeline.app.calculating import inputs_from, known_prices
    from pipeline.report.calculators.answers import csv_text, document

    inputs = inputs_from(calculator, texts, known_prices())
    result = calculator.calculate(inputs)
    if xlsx is not None:
        from pipeline.entrypoints.cli.result_files import check_target
        from pipeline.report.calculators.workbook import workbook

        check_target(xlsx, force=force)
        xlsx.write_bytes(workbook(calculator, inputs, result))
        say(f"Written: {xlsx}")
    if as_json:
        print_document(document(calculator, inputs, result))
    elif as_csv:
        print_line(csv_text(calculator, inputs, result).removesuffix("\n"))
    elif xlsx is None:
        _print(calculator, inputs, result)
    return ExitCode.OK


def _print(calculator: Calculator, inputs: object, result: object) -> None:
    from pipeline.report.calculators.answers import source_of
    from pipeline.report.calculators.figures import figure, unit_beside

    facts = [each for each in fields_of(calculator.result) if each.spec.kind is not Kind.ROWS]
    print_facts(
        {
            each.spec.label: f"{figure(each.spec.kind, getattr(result, each.name))}"
            f"{_spaced(unit_beside(each.spec.kind, each.spec.unit))}"
            for each in facts
        }
    )
    for each in fields_of(calculator.result):
        if each.spec.row is not None:
            print_line(f"\n{each.spec.label}")
            _print_rows(each.spec.row, getattr(result, each.name))
    print_line("\nInputs, and where they come from")
    rows = [
        (
            f"--{_flag(each)}",
            written(getattr(inputs, each.name), each.spec.kind),
            each.spec.unit,
            source_of(each, inputs),
        )
        for each in fields_of(calculator.inputs)
        if each.spec.kind is not Kind.ROWS
    ]
    print_table(("INPUT", "VALUE", "UNIT", "SOURCE"), rows, right=("VALUE",))
    for each in fields_of(calculator.inputs):
        if each.spec.kind is Kind.ROWS and not getattr(inputs, each.name):
            assert each.spec.row is not None
            say(f"No {each.public} are given; add --{_flag(each)[:-1]} '{heads_of(each.spec.row)}'.")


def _print_rows(shape: type, rows: Sequence[object]) -> None:
    from pipeline.report.calculators.figures import figure

    columns = [each for each in fields_of(shape) if each.public not in _DETAILS]
    heads = [f"{each.spec.label} {each.spec.unit}".strip().upper() for each in columns]
    is_by_month = columns[0].name == "month"
    cells = [
        tuple(figure(each.spec.kind, getattr(row, each.name)) for each in columns)
        for number, row in enumerate(rows)
        if not is_by_month or number % _MONTHS_APART == 0 or number == len(rows) - 1
    ]
    right = [head for head, each in zip(heads, columns, strict=True) if each.spec.kind is not Kind.NAME]
    print_table(heads, cells, right=right)


def _spaced(unit: str) -> str:
    return unit if unit.startswith("/") or not unit else f" {unit}"


def _flag(each: Described) -> str:
    return each.public.replace("_", "-")


def _command(calculator: Calculator) -> Callable[..., int]:
    """Return the command of a calculator: a flag for each input."""
    described = fields_of(calculator.inputs)

    def command(**given: object) -> int:
        outputs = {name: given.pop(name) for name in _OUTPUTS}
        texts = {each.public: text for each in described if (text := _text_of(each, given)) is not None}
        return _calculate(calculator, texts, **outputs)  # type: ignore[arg-type]  # as the signature below declares them

    parameters = [parameter for each in described for parameter in _parameters(each)]
    options = (
        (_OUTPUTS[0], AsJson, False),
        (_OUTPUTS[1], _AsCsv, False),
        (_OUTPUTS[2], _Xlsx, None),
        (_OUTPUTS[3], ForceOption, False),
    )
    parameters += [_parameter(name, annotation, default) for name, annotation, default in options]
    command.__doc__ = calculator.summary
    command.__name__ = calculator.name
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def _parameters(each: Described) -> list[inspect.Parameter]:
    spec = each.spec
    if spec.kind is Kind.ROWS:
        assert spec.row is not None
        heads = heads_of(spec.row)
        line = typer.Option(f"--{_flag(each)[:-1]}", metavar="LINE", help=f"{spec.label}: {heads}; repeatable.")
        file = typer.Option(f"--{_flag(each)}", metavar="FILE", help="The same, a line each.")
        return [
            _parameter(each.name, Annotated[list[str] | None, line], None),
            _parameter(f"{each.name}_file", Annotated[Path | None, file], None),
        ]
    unit = f", {spec.unit}" if spec.unit else ""
    words = f" One of {', '.join(spec.choices)}." if spec.choices else ""
    said = f"{spec.label}{unit}.{words} Default: {written(each.default, spec.kind)} ({spec.source})."
    option = typer.Option(f"--{_flag(each)}", metavar=spec.kind.upper(), help=said)
    return [_parameter(each.name, Annotated[str | None, option], None)]


def _parameter(name: str, annotation: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _text_of(each: Described, given: Mapping[str, object]) -> str | None:
    value = given[each.name]
    if each.spec.kind is not Kind.ROWS:
        return value if isinstance(value, str) else None
    file = given[f"{each.name}_file"]
    lines = list(value) if isinstance(value, list) else []
    if isinstance(file, Path):
        lines.append(_read(file))
    return "\n".join(lines) if lines else None


def _read(file: Path) -> str:
    content = file.read_bytes()
    if len(content) > _FILE_BYTES_MAX:
        raise UsageError(f"{file} has {len(content):,} bytes", hint=f"{_FILE_BYTES_MAX:,} are read at most")
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is no text in UTF-8") from error
    # A head, and notes.
    kept = [line for line in lines if not line.startswith(("#", "name,"))]
    return "\n".join(kept)
