"""A statement as PDF: one sheet of A4, by fpdf2, which is pure Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pipeline.domain.errors import NightrateError
from pipeline.report.statement.contents import Bar, Statement

if TYPE_CHECKING:  # an extra that need not be there
    from fpdf import FPDF

_MARGIN_MM: Final = 15.0
_WIDTH_MM: Final = 210.0 - 2 * _MARGIN_MM
_CHART_MM: Final = 38.0
_ROW_MM: Final = 5.0
_BLUE: Final = (47, 111, 178)
_GREY: Final = (92, 102, 112)
_BLACK: Final = (27, 31, 36)
#: Of a table; the page is one.
_ROWS_MAX: Final = 8


class PdfMissingError(NightrateError):
    """fpdf2 is not installed."""

    code = "pdf_missing"


def pdf(statement: Statement) -> bytes:
    """Return the sheet; raises `PdfMissingError`."""
    try:
        from fpdf import FPDF
    except ImportError:
        raise PdfMissingError(
            "PDF needs fpdf2, which is not installed", hint="pip install 'nightrate[pdf]', or --out FILE.html"
        ) from None
    sheet = FPDF(format="A4")
    sheet.set_margin(_MARGIN_MM)
    sheet.set_auto_page_break(False)
    sheet.set_title(_plain(f"{statement.title}: {statement.tenant_name}"))
    sheet.add_page()
    _head(sheet, statement)
    _columns(sheet, statement.by_day)
    half = _WIDTH_MM / 2 - 4
    top = sheet.get_y() + 6
    ends = [
        _table(sheet, "By model", statement.by_model, x=_MARGIN_MM, y=top, width=half),
        _table(sheet, "By tier", statement.by_tier, x=_MARGIN_MM + half + 8, y=top, width=half),
    ]
    end = _table(sheet, "By project", statement.by_project, x=_MARGIN_MM, y=max(ends) + 5, width=_WIDTH_MM)
    _table(sheet, "Batches that were charged the most", statement.batches, x=_MARGIN_MM, y=end + 5, width=_WIDTH_MM)
    return bytes(sheet.output())


def _head(sheet: FPDF, statement: Statement) -> None:
    _write(sheet, statement.title, x=_MARGIN_MM, y=_MARGIN_MM, size=18, style="B")
    period = statement.period
    about = f"{statement.tenant_name} ({statement.tenant_id}), {period.first} until {period.until}, UTC"
    _write(sheet, about, x=_MARGIN_MM, y=_MARGIN_MM + 8, size=9, ink=_GREY)
    column = _WIDTH_MM / len(statement.facts)
    for number, (name, told) in enumerate(statement.facts.items()):
        x = _MARGIN_MM + number * column
        _write(sheet, name, x=x, y=_MARGIN_MM + 16, size=8, ink=_GREY, width=column)
        _write(sheet, told, x=x, y=_MARGIN_MM + 20, size=10, width=column)
    sheet.set_y(_MARGIN_MM + 30)


def _columns(sheet: FPDF, bars: Sequence[Bar]) -> None:
    top = sheet.get_y()
    highest = max((bar.micros for bar in bars), default=0)
    step = _WIDTH_MM / max(1, len(bars))
    sheet.set_fill_color(*_BLUE)
    for number, bar in enumerate(bars):
        height = max(0.0, bar.micros / highest * _CHART_MM) if highest > 0 else 0.0
        x = _MARGIN_MM + number * step
        if height:
            sheet.rect(x, top + _CHART_MM - height, step * 0.8, height, style="F")
        _write(sheet, bar.name, x=x, y=top + _CHART_MM + 1, size=6, ink=_GREY, width=step * 0.8, align="C")
    sheet.set_y(top + _CHART_MM + 5)


def _table(sheet: FPDF, head: str, bars: Sequence[Bar], *, x: float, y: float, width: float) -> float:
    """Draw a table and return where it ends."""
    _write(sheet, head, x=x, y=y, size=10, style="B", width=width)
    y += _ROW_MM + 1
    for bar in bars[:_ROWS_MAX]:
        _write(sheet, bar.name, x=x, y=y, size=8, width=width * 0.7)
        _write(sheet, bar.told, x=x + width * 0.7, y=y, size=8, width=width * 0.3, align="R")
        y += _ROW_MM
    if len(bars) > _ROWS_MAX:
        _write(sheet, f"and {len(bars) - _ROWS_MAX} more", x=x, y=y, size=8, ink=_GREY, width=width)
        y += _ROW_MM
    return y


def _write(  # noqa: PLR0913 -- where, how and what
    sheet: FPDF,
    text: str,
    *,
    x: float,
    y: float,
    size: int,
    style: str = "",
    ink: tuple[int, int, int] = _BLACK,
    width: float = _WIDTH_MM,
    align: str = "L",
) -> None:
    sheet.set_font("helvetica", style, size)
    sheet.set_text_color(*ink)
    shown = _plain(text)
    while len(shown) > 1 and sheet.get_string_width(shown) > width:
        shown = shown[:-1]
    sheet.set_xy(x, y)
    sheet.cell(width, _ROW_MM, shown, align=align)


def _plain(text: str) -> str:
    # The fonts that every reader has know no more than this.
    return text.replace("€", "EUR ").encode("latin-1", "replace").decode("latin-1")
