"""`quote`: what a file would cost, when it would be done, and which windows it would meet, before anything is paid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.entrypoints.cli.counter import Counter, at_counter
from pipeline.entrypoints.cli.exits import ExitCode
from pipeline.entrypoints.cli.options import AsJson, EndpointOption, InputFile
from pipeline.entrypoints.cli.talk import print_document, print_facts, print_line, print_table, say

if TYPE_CHECKING:  # the stores are imported by the command that opens them
    from pipeline.ports.batches import LineError, Survey
    from pipeline.ports.quotes import ExpectedTokens, FileQuote, TierQuote

_WINDOWS = ("1h", "6h", "24h")


@at_counter
def quote(
    counter: Counter,
    file: InputFile,
    *,
    endpoint: EndpointOption = None,
    window: Annotated[
        list[str] | None,
        typer.Option("--window", help="Tell the chance of this window; repeatable. Default: 1h, 6h, 24h."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Say what would be charged for a file and when it would be done, tier by tier, on what is queued and alive now."""
    from pipeline.domain.windows import parse_window
    from pipeline.entrypoints.cli.inputs import opened_input
    from pipeline.ports.batches import Rejected

    windows = {text: parse_window(text).total_seconds() for text in window or _WINDOWS}
    with opened_input(file, endpoint=endpoint) as source, counter.desk() as desk:
        found = desk.quote(source.path, source.endpoint, windows=windows)
    if isinstance(found, Rejected):
        return _tell_rejected(file, found.errors, found.errors_total, as_json=as_json)
    survey, quotes = found.survey, found.tiers
    if as_json:
        print_document(_document(found, windows))
        return ExitCode.OK
    print_facts(_facts(survey) | _tokens(found.tokens))
    print_line("")
    _print_quotes(quotes, windows)
    if any(each.variant is not None and not each.is_measured for each in quotes):
        say("Nothing of this model has run here yet: its speed is an assumption, and the first packs will tell.")
    if all(each.variant is None for each in quotes):
        say(f"No live worker serves {survey.model}; `nightrate up` starts one, and then there is more to tell.")
    return ExitCode.OK


def _tell_rejected(file: str, errors: tuple[LineError, ...], total: int, *, as_json: bool) -> int:
    from pipeline.entrypoints.cli.documents import line_error_document, line_error_texts

    if as_json:
        print_document({"errors": [line_error_document(error) for error in errors], "errors_total": total})
    say(f"{file} would be rejected:")
    for line in line_error_texts(errors, total):
        say(line)
    return ExitCode.REFUSED


def _facts(survey: Survey) -> dict[str, str]:
    from pipeline.entrypoints.cli.figures import count

    rows = [f"{count(survey.rows_total)} in all"]
    if survey.rows_duplicate:
        rows.append(f"{count(survey.rows_duplicate)} duplicates that cost nothing")
    if survey.rows_refused:
        rows.append(f"{count(survey.rows_refused)} that no engine can run as asked")
    return {
        "model": survey.model,
        "rows": ", ".join(rows),
        "tokens, estimated": f"{count(round(survey.size.input_tokens))} in, {count(round(survey.size.output_tokens))} out at most",
    }


def _tokens(expected: ExpectedTokens) -> dict[str, str]:
    from pipeline.entrypoints.cli.figures import count

    if expected.answer_tokens is None:
        return {}
    median, most = (count(round(tokens)) for tokens in expected.answer_tokens)
    known = count(round(expected.answers_known))
    return {
        "tokens, expected": f"{count(round(expected.input_tokens))} in, {count(round(expected.output_tokens))} out: of "
        f"{known} answers to rows like these half had {median} tokens at most, nineteen of twenty {most}",
    }


def _print_quotes(quotes: tuple[TierQuote, ...], windows: dict[str, float]) -> None:
    from pipeline.entrypoints.cli.figures import duration, money, share

    heads = ("TIER", "VARIANT", "CHARGE", "DONE WITHIN", *(f"IN {text}" for text in windows), "CAN BE PROMISED")
    rows = []
    for each in quotes:
        if each.variant is None or each.cost_micros is None or each.finish_seconds is None:
            rows.append((str(each.tier), "-", *("-" for _ in heads[2:])))
            continue
        low, high = each.cost_micros
        soon, _, late = each.finish_seconds
        rows.append(
            (
                str(each.tier),
                each.variant,
                f"{money(low, each.currency)} to {money(high, each.currency)}",
                f"{duration(soon)} to {duration(late)}",
                *(share(each.chances[seconds]) for seconds in windows.values()),
                "-" if each.promise_seconds is None else f"in {duration(each.promise_seconds)}",
            )
        )
    print_table(heads, rows, right=tuple(f"IN {text}" for text in windows))


def _document(found: FileQuote, windows: dict[str, float]) -> dict[str, object]:
    survey, expected = found.survey, found.tokens
    answers = expected.answer_tokens
    return {
        "model": survey.model,
        "rows": {"total": survey.rows_total, "duplicate": survey.rows_duplicate, "refused": survey.rows_refused},
        "tokens_estimated": {
            "input": survey.size.input_tokens,
            "output": survey.size.output_tokens,
        },
        "tokens_expected": {
            "input": round(expected.input_tokens, 1),
            "output": round(expected.output_tokens, 1),
            "answers_known": round(expected.answers_known, 1),
            "answer": answers and {"median": round(answers[0], 1), "p95": round(answers[1], 1)},
        },
        "tiers": [
            {
                "tier": str(each.tier),
                "variant": each.variant,
                "charge_micros": each.cost_micros and {"low": each.cost_micros[0], "high": each.cost_micros[1]},
                # As it was called before.
                "cost_micros": each.cost_micros and {"low": each.cost_micros[0], "high": each.cost_micros[1]},
                "currency": each.currency,
                "finish_seconds": each.finish_seconds
                and dict(
                    zip(("low", "median", "high"), (round(value, 1) for value in each.finish_seconds), strict=True)
                ),
                "chances": {text: each.chances.get(seconds) for text, seconds in windows.items()},
                "is_measured": each.is_measured,
                "promise_seconds": each.promise_seconds and round(each.promise_seconds, 1),
            }
            for each in found.tiers
        ],
    }
