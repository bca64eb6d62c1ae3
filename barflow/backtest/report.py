"""The HTML report of a backtest: one self-contained file that loads nothing, with the figures and charts per rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from types import MappingProxyType

import jinja2

from barflow.backtest.charts import months_chart, returns_charts, sensitivity_chart
from barflow.backtest.prices import HORIZONS
from barflow.backtest.summary import Summary
from barflow.backtest.thresholds import FIELDS
from barflow.html_files import content_policy, write_html

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
# The horizon of the overview.
MAIN = "1h"
LISTED_SYMBOLS = 12


def write_report(path: Path, summary: Summary) -> None:
    """Write the page, completely or not at all. Raise BarflowError if it cannot be written."""
    write_html(
        path,
        render(summary),
        "The figures above are complete.",
        "Free space or fix the folder's permissions, then run the backtest again.",
    )


def render(summary: Summary) -> str:
    """Return the page's HTML."""
    folder = resources.files(__package__)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= FORMATS
    style = folder.joinpath("report.css").read_text(encoding="utf-8")
    template = environment.from_string(folder.joinpath("report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        summary=summary,
        horizons=HORIZONS,
        main=MAIN,
        fields=FIELDS,
        listed=LISTED_SYMBOLS,
        months_chart=months_chart,
        returns_charts=returns_charts,
        sensitivity_chart=sensitivity_chart,
        style=style,
        policy=content_policy(style),
    )


def change(value: float | None) -> str:
    """Format ``0.0123`` as ``+1.23 %``, and 0 without a sign."""
    if value is None:
        return NONE
    text = f"{value * 100:+.2f}"
    return (text[1:] if float(text) == 0 else text.replace("-", MINUS)) + " %"


def rate(value: float | None) -> str:
    """Format ``0.523`` as ``52 %``."""
    return NONE if value is None else f"{value * 100:.0f} %"


def span(values: Iterable[float] | None, form: Callable[[float | None], str]) -> str:
    """Format an interval as ``45 % to 61 %``, or as nothing without one."""
    return " to ".join(map(form, values)) if values else ""


def count(value: float) -> str:
    """Format ``7500`` as ``7,500``, and ``1.25`` as ``1.2``."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def number(value: float) -> str:
    """Format a threshold as it is written, at most six digits: ``-2``, ``30``, ``1.25``."""
    return f"{value:g}".replace("-", MINUS)


FORMATS: MappingProxyType[str, Callable[..., str]] = MappingProxyType(
    {
        "change": change,
        "rate": rate,
        "count": count,
        "number": number,
        "change_span": lambda values: span(values, change),
        "rate_span": lambda values: span(values, rate),
        "signed": lambda text: text.replace("-", MINUS),
    }
)
