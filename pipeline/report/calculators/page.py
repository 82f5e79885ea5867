"""The calculators as a web page: one document without scripts, fonts or images of elsewhere.

Inputs are the query of its address, so an address is a calculation. Whatever people wrote is escaped where it is written out.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Final
from urllib.parse import urlencode

from pipeline.report.calculators.catalogue import CALCULATORS, Calculator
from pipeline.report.calculators.fields import Described, Kind, fields_of, heads_of, written
from pipeline.report.calculators.figures import figure, unit_beside
from pipeline.report.calculators.gpus import gpus_as_of
from pipeline.report.calculators.pictures import picture

PATH: Final = "/calculators"
#: The parameters beside the inputs.
CALCULATOR_PARAM: Final = "calculator"
FORMAT_PARAM: Final = "format"
_EXAMPLE_ROWS: Final[Mapping[str, str]] = {
    "offers": "p5.4xlarge, H100, 1, on_demand, 6.88",
    "apis": "some-model (batch), 0.05, 0.20",
    "makings": "own servers, 0.02, 0.15, 9000",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a page is about: a calculator, what was written, and what came of it."""

    calculator: Calculator
    #: By public name, as it was written; what is not there has its default.
    texts: Mapping[str, str]
    #: By public name; where there is one, there is no result.
    problems: Mapping[str, str]
    inputs: object | None = None
    result: object | None = None
    formats: Sequence[str] = ("csv", "json")


def page(asked: Asked) -> str:
    """Return the page of a calculation."""
    calculator = asked.calculator
    body = (
        f"<h2>{escape(calculator.title)}</h2><p class=soft>{escape(calculator.summary)}</p>"
        f"{_summary_of_problems(asked)}<div class=columns>{_form(asked)}"
        f"<section aria-label=Answers>{_answers(asked)}</section></div>"
    )
    return _document(calculator.title, body, current=calculator.name)


def not_found_page(name: str) -> str:
    """Return the page that says that there is no such calculator."""
    body = f"<h2>No such calculator</h2><p>There is none named <q>{escape(name[:80])}</q>; choose one above.</p>"
    return _document("No such calculator", body, current=None)


def content_security_policy() -> str:
    """Return what the page may do: show its own style, and send its form to its own server."""
    digest = b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def address(asked: Asked, **more: str) -> str:
    """Return the address of this calculation, with what differs from the defaults alone."""
    changed = {
        each.public: asked.texts[each.public]
        for each in fields_of(asked.calculator.inputs)
        if asked.texts.get(each.public, "").strip() not in {"", _default(each)}
    }
    return f"{PATH}?{urlencode({CALCULATOR_PARAM: asked.calculator.name, **changed, **more})}"


@cache
def _style() -> str:
    return (files(__package__) / "page.css").read_text()


def _document(title: str, body: str, *, current: str | None) -> str:
    links = "".join(
        f'<li><a href="{PATH}?{CALCULATOR_PARAM}={name}"{" aria-current=page" if name == current else ""}>'
        f"{escape(each.title)}</a></li>"
        for name, each in CALCULATORS.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">'
        f"<title>{escape(title)} - Nightrate</title><style>{_style()}</style></head><body>"
        f"<header><h1>Nightrate calculators</h1><nav aria-label=Calculators><ul>{links}</ul></nav></header>"
        f"<main>{body}</main><footer><p class=soft>Worked out from the inputs alone; nothing is kept. "
        f"GPU figures as of {escape(gpus_as_of())}.</p></footer></body></html>"
    )


def _summary_of_problems(asked: Asked) -> str:
    labels = {each.public: each.spec.label for each in fields_of(asked.calculator.inputs)}
    items = "".join(
        f'<li><a href="#{escape(name)}">{escape(labels.get(name, name))}</a>: {escape(said)}</li>'
        for name, said in asked.problems.items()
    )
    return (
        f'<div class="card" role="alert"><p><strong>Not worked out yet:</strong></p><ul>{items}</ul></div>'
        if items
        else ""
    )


def _form(asked: Asked) -> str:
    fields = "".join(_field(asked, each) for each in fields_of(asked.calculator.inputs))
    name = escape(asked.calculator.name)
    return (
        f'<form method="get" action="{PATH}"><input type="hidden" name="{CALCULATOR_PARAM}" value="{name}">'
        f'{fields}<div class="buttons"><button type="submit">Work it out</button>'
        f'<a href="{PATH}?{CALCULATOR_PARAM}={name}">Start over</a></div></form>'
    )


def _field(asked: Asked, each: Described) -> str:
    name, spec = each.public, each.spec
    problem = asked.problems.get(name)
    value = asked.texts.get(name, "") or _default(each)
    if asked.inputs is not None and spec.kind is Kind.ROWS:
        value = asked.texts.get(name, "") or written(getattr(asked.inputs, each.name), Kind.ROWS)
    hints = [text for text in (spec.unit, "" if value != _default(each) else spec.source) if text]
    if spec.row is not None:
        hints = [f"A line each: {heads_of(spec.row)}. {spec.source}."]
    described = f"{name}-hint" + (f" {name}-error" if problem else "")
    attributes = f'id="{name}" name="{name}" aria-describedby="{described}"' + (
        ' aria-invalid="true"' if problem else ""
    )
    error = f'<span class="error" id="{name}-error">{escape(problem)}</span>' if problem else ""
    return (
        f'<div class="field"><label for="{name}">{escape(spec.label)}</label>{_control(each, attributes, value)}{error}'
        f'<span class="hint" id="{name}-hint">{escape("; ".join(hints))}</span></div>'
    )


def _control(each: Described, attributes: str, value: str) -> str:
    match each.spec.kind:
        case Kind.CHOICE:
            options = "".join(
                f'<option value="{escape(word)}"{" selected" if word == value else ""}>{escape(word.replace("_", " "))}</option>'
                for word in each.spec.choices
            )
            return f"<select {attributes}>{options}</select>"
        case Kind.ROWS:
            example = escape(_EXAMPLE_ROWS.get(each.public, ""), quote=True)
            # A newline right behind the tag is not part of the text.
            return f'<textarea {attributes} spellcheck="false" placeholder="{example}">\n{escape(value)}</textarea>'
        case _:
            return f'<input {attributes} type="text" inputmode="decimal" autocomplete="off" value="{escape(value)}">'


def _default(each: Described) -> str:
    return "" if each.spec.kind is Kind.ROWS else written(each.default, each.spec.kind)


def _answers(asked: Asked) -> str:
    if asked.result is None:
        return '<p class="soft">Answers come here once every input makes sense.</p>'
    described = fields_of(asked.calculator.result)
    cards = "".join(_card(each, asked.result) for each in described if each.spec.kind is not Kind.ROWS)
    caption, chart = picture(asked.result)
    drawn = f'<figure class="card"><figcaption>{escape(caption)}</figcaption>{chart}</figure>' if chart else ""
    tables = "".join(
        _table(each.spec.label, each.spec.row, getattr(asked.result, each.name))
        for each in described
        if each.spec.row is not None
    )
    links = "".join(
        f'<li><a href="{escape(address(asked, **({FORMAT_PARAM: kind} if kind else {})))}">{escape(text)}</a></li>'
        for kind, text in (("", "Link to this calculation"), *((each, each.upper()) for each in asked.formats))
    )
    return f'<dl class="figures">{cards}</dl><h3>At a glance</h3>{drawn}{tables}<ul class="links">{links}</ul>'


def _card(each: Described, result: object) -> str:
    kind = each.spec.kind
    unit = unit_beside(kind, each.spec.unit)
    shown = escape(figure(kind, getattr(result, each.name))) + (f" <small>{escape(unit)}</small>" if unit else "")
    return f"<div><dt>{escape(each.spec.label)}</dt><dd>{shown}</dd></div>"


def _table(caption: str, shape: type, rows: Sequence[object]) -> str:
    if not rows:
        return f'<h3>{escape(caption)}</h3><p class="soft">Nothing to compare yet: add a line in the form.</p>'
    columns = fields_of(shape)
    heads = "".join(
        f'<th scope="col"{_words(each)}>{escape(f"{each.spec.label} {each.spec.unit}".strip())}</th>'
        for each in columns
    )
    lines = "".join(
        "<tr>"
        + "".join(
            f"<td{_words(each)}>{escape(figure(each.spec.kind, getattr(row, each.name)))}</td>" for each in columns
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="card scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table><caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _words(each: Described) -> str:
    return ' class="words"' if each.spec.kind in {Kind.NAME, Kind.CHOICE, Kind.FLAG} else ""
