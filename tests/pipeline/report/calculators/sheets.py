"""A workbook read back, and its formulas worked out again: as much of Excel as ours need."""

# ruff: noqa: ANN401, PLR0911 -- cells come to anything, and a formula has many kinds of pieces
from __future__ import annotations

import io
import math
import re
import zipfile
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

_NS = {"m": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_TOKEN = re.compile(
    r'"[^"]*"|[A-Za-z_]+!\$?[A-Z]+\$?\d+(?::\$?[A-Z]+\$?\d+)?|[A-Za-z_][A-Za-z_0-9]*|\d+(?:\.\d+)?|<=|>=|<>|[-+*/^=<>(),]'
)
_CELL = re.compile(r"(?:([A-Za-z_]+)!)?\$?([A-Z]+)\$?(\d+)")
_FUNCTIONS = {
    "SUM": lambda *each: sum(value for one in each for value in (one if isinstance(one, list) else [one])),
    "MAX": max,
    "ABS": abs,
    "ROUNDUP": lambda value, digits: math.ceil(value * 10**digits - 1e-9) / 10**digits,
}


@dataclass(frozen=True, slots=True)
class Cell:
    """What is kept of a cell: its value, and the formula that it comes from."""

    value: float | str | None
    formula: str | None = None


class Sheets:
    """A workbook: cells by sheet and place, and defined names."""

    def __init__(self, content: bytes) -> None:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            book = ET.fromstring(archive.read("xl/workbook.xml"))  # noqa: S314 -- we wrote it
            strings = [
                "".join(item.itertext())
                for item in ET.fromstring(archive.read("xl/sharedStrings.xml")).findall("m:si", _NS)  # noqa: S314
            ]
            names = [sheet.attrib["name"] for sheet in book.findall("m:sheets/m:sheet", _NS)]
            self.cells = {
                name: _cells(archive.read(f"xl/worksheets/sheet{number}.xml"), strings)
                for number, name in enumerate(names, start=1)
            }
        self.names = {
            each.attrib["name"]: each.text or "" for each in book.findall("m:definedNames/m:definedName", _NS)
        }

    def put(self, name: str, value: float | str) -> None:
        """Write another value into an input, as a person would."""
        sheet, column, row = _CELL.fullmatch(self.names[name]).groups()  # type: ignore[union-attr]
        self.cells[sheet][f"{column}{row}"] = Cell(value)

    def named(self, name: str) -> float | str | None:
        """Work out what has this name, formulas and all that they need."""
        return self.at(self.names[name])

    def formula_of(self, name: str) -> str | None:
        """Return the formula of what has this name, or None."""
        sheet, column, row = _CELL.fullmatch(self.names[name]).groups()  # type: ignore[union-attr]
        return self.cells[sheet][f"{column}{row}"].formula

    def at(self, reference: str, sheet: str = "") -> float | str | None:
        """Work out a cell."""
        found = _CELL.fullmatch(reference)
        assert found is not None, reference
        where = found[1] or sheet
        cell = self.cells[where].get(f"{found[2]}{found[3]}", Cell(None))
        return cell.value if cell.formula is None else _Formula(self, where, cell.formula).value()

    def column(self, reference: str) -> list[float | str | None]:
        """Work out a range of one column."""
        sheet, _, rest = reference.partition("!")
        first, last = (_CELL.fullmatch(end) for end in rest.split(":"))
        assert first is not None
        assert last is not None
        return [self.at(f"{first[2]}{row}", sheet) for row in range(int(first[3]), int(last[3]) + 1)]


def _cells(content: bytes, strings: list[str]) -> dict[str, Cell]:
    found = {}
    for each in ET.fromstring(content).iterfind(".//m:c", _NS):  # noqa: S314 -- we wrote it
        text, formula = each.findtext("m:v", None, _NS), each.findtext("m:f", None, _NS)
        value: float | str | None = text
        if each.attrib.get("t") == "s":
            value = strings[int(text or 0)]
        elif text is not None and each.attrib.get("t") != "str":
            value = float(text)
        found[each.attrib["r"]] = Cell(value, formula)
    return found


class _Formula:
    """Comparison, sum, product, power, from the loosest to the tightest."""

    def __init__(self, sheets: Sheets, sheet: str, text: str) -> None:
        self.sheets, self.sheet = sheets, sheet
        self.tokens = _TOKEN.findall(text)
        assert "".join(self.tokens) == text, f"unread: {text}"
        self.place = 0

    def value(self) -> Any:
        found = self.comparison()
        assert self.place == len(self.tokens), self.tokens[self.place :]
        return found

    def taken(self, *wanted: str) -> str | None:
        if self.place < len(self.tokens) and self.tokens[self.place] in wanted:
            self.place += 1
            return self.tokens[self.place - 1]
        return None

    def comparison(self) -> Any:
        left = self.total()
        while sign := self.taken("=", "<=", ">=", "<", ">", "<>"):
            right = self.total()
            left = (
                {"=": left == right, "<>": left != right}[sign]
                if sign in {"=", "<>"}
                else {"<=": left <= right, ">=": left >= right, "<": left < right, ">": left > right}[sign]
            )
        return left

    def total(self) -> Any:
        left = self.product()
        while sign := self.taken("+", "-"):
            right = self.product()
            left = left + right if sign == "+" else left - right
        return left

    def product(self) -> Any:
        left = self.power()
        while sign := self.taken("*", "/"):
            right = self.power()
            left = left * right if sign == "*" else left / right if right else math.nan
        return left

    def power(self) -> Any:
        # Excel's minus before a name is tighter than its power, and so is a minus behind the sign of power.
        left = self.one()
        while self.taken("^"):
            left = left ** self.one()
        return left

    def one(self) -> Any:
        if self.taken("-"):
            return -self.one()
        if self.taken("("):
            found = self.comparison()
            assert self.taken(")")
            return found
        token = self.tokens[self.place]
        self.place += 1
        if self.taken("("):
            return self.called(token)
        if token[0] == '"':
            return token[1:-1]
        if token[0].isdigit():
            return float(token)
        if token == "TRUE":  # noqa: S105 -- a word of Excel's
            return True
        if ":" in token:
            return self.sheets.column(token)
        if token in self.sheets.names:
            return self.sheets.named(token)
        return self.sheets.at(token, self.sheet)

    def called(self, name: str) -> Any:
        given = [self.comparison()]
        while self.taken(","):
            given.append(self.comparison())
        assert self.taken(")")
        return (given[1] if given[0] else given[2]) if name == "IF" else _FUNCTIONS[name](*given)
