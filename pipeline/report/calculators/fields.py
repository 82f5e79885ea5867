"""What calculators ask and answer, described once: forms, flags, schemas, tables and sheets are made from it.

A field's public name is its own without `_micros`: people write and read amounts of units ("1.50"), the inside counts
micro-units. Shares are percents. Numbers are decimals, so that what is written is what is counted with.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation, localcontext
from enum import StrEnum
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from pipeline.domain.money import MICROS_PER_UNIT

_Inputs = TypeVar("_Inputs")
_Result = TypeVar("_Result")
_Parameters = ParamSpec("_Parameters")

#: Of a table that is an input.
ROWS_MAX: Final = 64
NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9 ._@/:()+-]{0,79}$"
#: Less than a billion units, to the micro-unit.
AMOUNT_PATTERN: Final = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"
_NUMBER_CHARS_MAX: Final = 40
_DIGITS: Final = 40
_SPEC: Final = "nightrate.spec"
_NOTHING: Final = Decimal(0)


class Kind(StrEnum):
    """What a field holds."""

    COUNT = "count"
    #: Integer micro-units inside, "1.50" outside.
    AMOUNT = "amount"
    NUMBER = "number"
    CHOICE = "choice"
    NAME = "name"
    FLAG = "flag"
    ROWS = "rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What is known of a field besides its type."""

    kind: Kind
    label: str
    unit: str = ""
    #: Where the default comes from; of an answer, nothing.
    source: str = ""
    low: Decimal = _NOTHING
    high: Decimal = _NOTHING
    choices: tuple[str, ...] = ()
    #: Of a table: what a row is.
    row: type | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A field with its spec."""

    name: str
    spec: Spec
    #: None where it must be given.
    default: Any
    is_required: bool
    #: Its value may be None.
    is_optional: bool

    @property
    def public(self) -> str:
        """Return the name that people see."""
        return public_name(self.name)


def public_name(name: str) -> str:
    """Return a field's name as people see it: money is in units there."""
    return name.replace("_micros", "")


def fields_of(shape: type) -> tuple[Described, ...]:
    """Return the fields of a shape that was declared with the functions below, in order."""
    return tuple(
        Described(
            name=each.name,
            spec=each.metadata[_SPEC],
            default=None if each.default is MISSING else each.default,
            is_required=each.default is MISSING,
            is_optional="None" in str(each.type),
        )
        for each in dataclasses.fields(shape)
        if _SPEC in each.metadata
    )


def count(
    default: int, label: str, *, unit: str = "", source: str = "", low: int = 0, high: int = 1_000_000_000_000
) -> int:
    """Declare an input that is a whole number."""
    spec = Spec(kind=Kind.COUNT, label=label, unit=unit, source=source, low=Decimal(low), high=Decimal(high))
    return field(default=default, metadata={_SPEC: spec})


def amount_of(default_units: str, label: str, *, unit: str, source: str = "") -> int:
    """Declare an input that is money, its default in units."""
    spec = Spec(kind=Kind.AMOUNT, label=label, unit=unit, source=source)
    return field(default=int(Decimal(default_units) * MICROS_PER_UNIT), metadata={_SPEC: spec})


def number(default: str, label: str, *, unit: str, source: str = "", low: str = "0", high: str = "1000000") -> Decimal:
    """Declare an input that is a number."""
    spec = Spec(kind=Kind.NUMBER, label=label, unit=unit, source=source, low=Decimal(low), high=Decimal(high))
    return field(default=Decimal(default), metadata={_SPEC: spec})


def percent(default: str, label: str, *, source: str = "", low: str = "0", high: str = "100") -> Decimal:
    """Declare an input that is a share."""
    return number(default, label, unit="%", source=source, low=low, high=high)


def choice(default: str, label: str, choices: Sequence[str], *, source: str = "") -> str:
    """Declare an input that is one of a few words."""
    spec = Spec(kind=Kind.CHOICE, label=label, source=source, choices=tuple(choices))
    return field(default=default, metadata={_SPEC: spec})


def name(label: str) -> str:
    """Declare an input that is a name."""
    spec = Spec(kind=Kind.NAME, label=label)
    found: str = field(metadata={_SPEC: spec})
    return found


def rows(shape: type[_Inputs], label: str, *, source: str = "") -> tuple[_Inputs, ...]:
    """Declare an input that is a table of `shape`; empty unless given."""
    return field(default=(), metadata={_SPEC: Spec(kind=Kind.ROWS, label=label, source=source, row=shape)})


def shown(kind: Kind, label: str, unit: str = "", *, row: type | None = None) -> Any:  # noqa: ANN401 -- as dataclasses.field
    """Declare an answer."""
    return field(metadata={_SPEC: Spec(kind=kind, label=label, unit=unit, row=row)})


def exactly(calculate: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Let a function count in forty decimal digits, whoever calls it."""

    @wraps(calculate)
    def in_context(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        with localcontext(Context(prec=_DIGITS, rounding=ROUND_HALF_EVEN)):
            return calculate(*args, **kwargs)

    return in_context


def micros(value: Decimal | int) -> int:
    """Return a sum of micro-units as a whole number, halves to the even one; called once, at the end."""
    return int(Decimal(value).to_integral_value(ROUND_HALF_EVEN))


class Unreadable(ValueError):  # noqa: N818 -- it names what was written, not what failed
    """What was written is not what the field takes; the message says what it takes."""


def read(shape: type[_Inputs], written: Mapping[str, str]) -> tuple[_Inputs | None, dict[str, str]]:
    """Read inputs as people write them, by public name.

    Returns:
        The inputs, or None, and what is wrong by public name. Fields that are not there, or empty, have their default.
    """
    values: dict[str, object] = {}
    problems: dict[str, str] = {}
    for each in fields_of(shape):
        text = written.get(each.public, "").strip()
        if not text and not each.is_required:
            continue
        try:
            values[each.name] = read_value(each.spec, text)
        except Unreadable as error:
            problems[each.public] = str(error)
    for unknown in sorted(set(written) - {each.public for each in fields_of(shape)}):
        problems[unknown] = "There is no such input."
    return (None if problems else shape(**values)), problems


def from_document(shape: type[_Inputs], document: Mapping[str, Any]) -> _Inputs:
    """Return inputs of a document that has the shape already: money as text, other numbers as JSON has them."""
    values: dict[str, object] = {}
    for each in fields_of(shape):
        if each.public not in document:
            continue
        value = document[each.public]
        match each.spec.kind:
            case Kind.AMOUNT:
                values[each.name] = int(Decimal(value) * MICROS_PER_UNIT)
            case Kind.NUMBER:
                values[each.name] = Decimal(repr(value))
            case Kind.ROWS:
                assert each.spec.row is not None
                values[each.name] = tuple(from_document(each.spec.row, row) for row in value)
            case _:
                values[each.name] = value
    return shape(**values)


def read_value(spec: Spec, text: str) -> object:
    """Return what `text` says, or raise `Unreadable`."""
    match spec.kind:
        case Kind.COUNT | Kind.NUMBER:
            return _number(spec, text)
        case Kind.AMOUNT:
            if not re.fullmatch(AMOUNT_PATTERN, text):
                raise Unreadable("Write an amount such as 1.50: no sign, under a billion, six decimals at most.")
            return int(Decimal(text) * MICROS_PER_UNIT)
        case Kind.CHOICE:
            if text not in spec.choices:
                raise Unreadable(f"Write one of {', '.join(spec.choices)}.")
            return text
        case Kind.NAME:
            if not re.fullmatch(NAME_PATTERN, text):
                raise Unreadable("Write a name of 80 letters, digits, spaces or ._@/:()+- at most.")
            return text
        case Kind.ROWS:
            return _rows(spec, text)
        case Kind.FLAG:
            raise AssertionError("no input is a flag")


def _number(spec: Spec, text: str) -> int | Decimal:
    plain = text.replace("_", "")
    try:
        value = Decimal(plain) if len(plain) <= _NUMBER_CHARS_MAX else Decimal("NaN")
    except InvalidOperation:
        value = Decimal("NaN")
    is_whole = value.is_finite() and value == value.to_integral_value()
    kind = "a whole number" if spec.kind is Kind.COUNT else "a number"
    if not value.is_finite() or not spec.low <= value <= spec.high or (spec.kind is Kind.COUNT and not is_whole):
        raise Unreadable(f"Write {kind} from {spec.low:,f} to {spec.high:,f}.")
    return int(value) if spec.kind is Kind.COUNT else value


def _rows(spec: Spec, text: str) -> tuple[object, ...]:
    assert spec.row is not None
    lines = [line.strip() for line in re.split(r"[\n;]", text) if line.strip()]
    if len(lines) > ROWS_MAX:
        raise Unreadable(f"Write {ROWS_MAX} lines at most; these are {len(lines)}.")
    columns = fields_of(spec.row)
    found: list[object] = []
    for number_, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) > len(columns):
            raise Unreadable(f"Line {number_} has {len(cells)} parts; there are {len(columns)}: {heads_of(spec.row)}.")
        written = {column.public: cell for column, cell in zip(columns, cells, strict=False)}
        row, problems = read(spec.row, written)
        if problems:
            public, said = next(iter(problems.items()))
            raise Unreadable(f"Line {number_}, {public}: {said}")
        found.append(row)
    return tuple(found)


def heads_of(row: type) -> str:
    """Return the columns of a table that is an input, as a line of it has them."""
    return ", ".join(each.public for each in fields_of(row))


def written(value: object, kind: Kind) -> str:
    """Return a value of a field as it may be read again."""
    match kind:
        case Kind.AMOUNT:
            assert isinstance(value, int)
            units, rest = divmod(value, MICROS_PER_UNIT)
            return f"{units}.{rest:06d}".rstrip("0").rstrip(".")
        case Kind.NUMBER:
            assert isinstance(value, Decimal)
            text = f"{value:f}"
            return text.rstrip("0").rstrip(".") if "." in text else text
        case Kind.ROWS:
            assert isinstance(value, tuple)
            return "\n".join(", ".join(_cells(row)) for row in value)
        case _:
            return str(value)


def _cells(row: object) -> list[str]:
    return [written(getattr(row, each.name), each.spec.kind) for each in fields_of(type(row))]
