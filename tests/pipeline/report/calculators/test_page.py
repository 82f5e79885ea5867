"""The page: whole HTML, every input labelled, nothing from elsewhere, and what is wrong said where it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

import pytest

from pipeline.report.calculators.catalogue import CALCULATORS
from pipeline.report.calculators.charts import Bar, bars, lines
from pipeline.report.calculators.fields import Kind, fields_of, read
from pipeline.report.calculators.page import Asked, address, content_security_policy, not_found_page, page

VOID = frozenset({"meta", "input", "br", "rect", "line", "polyline"})
NASTY = '"><script>alert(1)</script>'


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.texts)


class Parsed(HTMLParser):
    """A document whose elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self.open: list[Element] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {tag} {attrs}"
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.texts.append(data)

    def all(self, *tags: str) -> list[Element]:
        return [element for element in self.elements if element.tag in tags]


def asked(name: str, **texts: str) -> Asked:
    calculator = CALCULATORS[name]
    inputs, problems = read(calculator.inputs, texts)
    if problems:
        return Asked(calculator=calculator, texts=texts, problems=problems)
    return Asked(calculator=calculator, texts=texts, problems={}, inputs=inputs, result=calculator.calculate(inputs))


GIVEN = {
    "model": {"offers": "p5.4xlarge, H100, 1, on_demand, 6.88\ng4dn.xlarge, T4, 1, spot, 0.2"},
    "buy-or-make": {"apis": "nano, 0.05, 0.20"},
}
EVERY = pytest.mark.parametrize("name", CALCULATORS)


@EVERY
def test_a_page_is_whole_and_names_each_id_once(name: str) -> None:
    parsed = Parsed(page(asked(name, **GIVEN.get(name, {}))))
    ids = [element.attributes["id"] for element in parsed.elements if "id" in element.attributes]

    assert len(ids) == len(set(ids))
    assert parsed.all("html")[0].attributes["lang"] == "en"
    assert len(parsed.all("main")) == len(parsed.all("h1")) == 1
    assert parsed.all("svg")
    assert all(element.attributes.get("aria-label") for element in parsed.all("svg"))


@EVERY
def test_every_input_has_a_label_a_hint_and_its_default(name: str) -> None:
    parsed = Parsed(page(asked(name)))
    labels = {element.attributes["for"]: element.text for element in parsed.all("label")}
    hints = {element.attributes["id"]: element.text for element in parsed.all("span") if "id" in element.attributes}
    controls = {
        element.attributes["name"]: element.attributes
        for element in parsed.all("input", "select", "textarea")
        if element.attributes.get("type") != "hidden"
    }

    described = {each.public: each for each in fields_of(CALCULATORS[name].inputs)}
    assert controls.keys() == labels.keys() == described.keys()
    for public, attributes in controls.items():
        assert attributes["id"] == public
        assert labels[public] == described[public].spec.label
        assert described[public].spec.source in hints[attributes["aria-describedby"] or ""]
        assert described[public].spec.source, f"{public} does not say where its default comes from"


@EVERY
def test_nothing_comes_from_elsewhere_and_nothing_is_run(name: str) -> None:
    text = page(asked(name, **GIVEN.get(name, {})))
    parsed = Parsed(text)

    assert "//" not in re.sub(r"<title>.*?</title>", "", text)
    assert not parsed.all("script", "link", "img", "iframe", "object")
    for element in parsed.elements:
        assert not {key for key in element.attributes if key.startswith("on") or key in {"src", "style"}}
        target = element.attributes.get("href") or element.attributes.get("action") or "/calculators"
        assert target.startswith(("/calculators", "#"))
    policy = content_security_policy()
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy


@EVERY
def test_the_address_of_a_calculation_makes_the_same_again(name: str) -> None:
    first = next(each for each in fields_of(CALCULATORS[name].inputs) if each.spec.kind is Kind.COUNT)
    before = asked(name, **{first.public: "7"}, **GIVEN.get(name, {}))

    query = parse_qs(urlsplit(address(before)).query)
    texts = {key: values[0] for key, values in query.items() if key != "calculator"}

    assert query["calculator"] == [name]
    assert texts.keys() == {first.public, *GIVEN.get(name, {})}
    assert asked(name, **texts).inputs == before.inputs


@pytest.mark.parametrize(
    ("name", "field_", "text", "said"),
    [
        ("tco", "pue", "0.9", "Write a number from 1 to 5."),
        ("tco", "servers", "1.5", "Write a whole number from 1 to 100,000."),
        ("tco", "server_price", "-1", "Write an amount such as 1.50"),
        ("tco", "server_price", "0.0000001", "six decimals at most"),
        ("roi", "moving_from", "the moon", "Write one of api_list, api_batch"),
        ("model", "parameters_billions", "NaN", "Write a number from 0.001 to 100,000."),
        ("model", "parameters_billions", "1e999999999", "Write a number from"),
        ("model", "offers", "a, H100, 1, spot, -1", "price_per_hour: Write an amount"),
        ("model", "offers", "a, Abacus, 1, spot, 1", "Line 1, gpu: Write one of"),
        ("model", "offers", "a, H100, 1, spot, 1, 1, 1, 1", "Line 1 has 8 parts; there are 7"),
        ("model", "offers", "a, H100, 1, spot, 1\n" * 65, "64 lines at most"),
        ("buy-or-make", "apis", NASTY, "Line 1, name: Write a name"),
        ("tco", "pue", NASTY, "Write a number from 1 to 5."),
    ],
)
def test_what_is_wrong_is_said_at_its_field(name: str, field_: str, text: str, said: str) -> None:
    found = page(asked(name, **{field_: text}))
    parsed = Parsed(found)

    (error,) = (element for element in parsed.all("span") if element.attributes.get("id") == f"{field_}-error")
    (control,) = (element for element in parsed.elements if element.attributes.get("id") == field_)
    assert said in error.text
    assert control.attributes["aria-invalid"] == "true"
    assert f"{field_}-error" in (control.attributes["aria-describedby"] or "").split()
    assert f'href="#{field_}"' in found
    assert "<script" not in found
    assert not parsed.all("dl")
    # What was written is still there.
    kept = control.text.strip() if control.tag == "textarea" else control.attributes.get("value")
    assert control.tag == "select" or kept == text.strip()


def test_an_unknown_calculator_is_named_as_it_was_written() -> None:
    found = not_found_page(NASTY)

    assert "&lt;script&gt;" in found
    assert "<script" not in found
    Parsed(found)


def test_bars_lie_within_the_chart_and_are_as_long_as_their_values() -> None:
    chart = Parsed(
        bars("t", [Bar(label="a", stop_micros=10), Bar(label="b", stop_micros=5), Bar(label="c", stop_micros=-5)])
    )
    left, width = ([float(rect.attributes[name] or "") for rect in chart.all("rect")] for name in ("x", "width"))

    assert width[0] == pytest.approx(2 * width[1])
    assert width[1] == pytest.approx(width[2])
    assert min(left) >= 0
    assert max(x + w for x, w in zip(left, width, strict=True)) <= 760
    assert bars("t", []) == ""


def test_lines_rise_with_their_values() -> None:
    chart = Parsed(lines("t", [("a", [0, 5, 10]), ("b", [0, 0, 0])], unit="mo"))
    first, second = (
        [float(point.split(",")[1]) for point in (element.attributes["points"] or "").split()]
        for element in chart.all("polyline")
    )

    assert first == sorted(first, reverse=True)
    assert len(set(first)) == 3
    assert len(set(second)) == 1


@EVERY
def test_no_two_inputs_and_no_two_answers_are_called_the_same(name: str) -> None:
    for shape in (CALCULATORS[name].inputs, CALCULATORS[name].result):
        labels = [each.spec.label for each in fields_of(shape)]
        assert len(labels) == len(set(labels))
