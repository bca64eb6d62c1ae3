"""Figures: two measurements of one run, their ratio and its target, as a table or as Markdown."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from barflow.cli.common import PlainConsole
from barflow.cli.terminal import table
from benchmarks.chart import Chart

HEADS = ("figure", "ours", "against", "theirs", "ratio", "target", "result")
# Words to the left, numbers to the right.
ALIGNMENT = ("---", "---:", "---", "---:", "---:", "---:", "---")


@dataclass(frozen=True)
class Figure:
    """A measurement in ``unit`` and, where there is one, the measurement that it is compared with.

    Less is better then, and ``target`` limits the ratio. With ``times_less`` the ratio is theirs / ours and at least
    the target; without, it is ours / theirs and at most the target. A target of 0 is none.
    """

    name: str
    ours: float
    unit: str
    against: str = ""
    theirs: float = 0.0
    target: float = 0.0
    times_less: bool = False

    @property
    def ratio(self) -> float:
        """Return the ratio of the two measurements."""
        return self.theirs / self.ours if self.times_less else self.ours / self.theirs

    @property
    def reached(self) -> bool:
        """Return whether the ratio reaches its target."""
        if not self.target:
            return True
        return self.ratio >= self.target if self.times_less else self.ratio <= self.target

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the figure's row of the table."""
        ours = _number(self.ours, self.unit)
        if not self.against:
            return (self.name, ours, "", "", "", "", "")
        less, bound = (" less", "≥") if self.times_less else ("", "≤")
        target = f"{bound} {self.target:g}×{less}" if self.target else ""
        verdict = ("reached" if self.reached else "NOT reached") if self.target else ""
        return (
            self.name,
            ours,
            self.against,
            _number(self.theirs, self.unit),
            f"{self.ratio:.2f}×{less}",
            target,
            verdict,
        )


@dataclass(frozen=True)
class Chapter:
    """The figures of one module, what they mean, and one line for everything else that the run showed.

    ``tables`` are Markdown. ``failed`` says what could not be measured.
    """

    title: str
    meaning: str
    figures: Sequence[Figure]
    notes: Sequence[str]
    tables: Sequence[str] = ()
    chart: Chart | None = None
    failed: str = ""


def middle(values: Iterable[float]) -> float:
    """Return the median of repeated measurements."""
    return median(values)


def show(chapters: Sequence[Chapter]) -> None:
    """Print all figures as one table, and the notes below it."""
    shown = table(f"measured on {machine()}", HEADS, left=1)
    for chapter in chapters:
        for figure in chapter.figures:
            shown.add_row(*figure.cells, style="" if figure.reached else "yellow")
    out = PlainConsole(highlight=False, width=200)
    out.print(shown)
    for chapter in chapters:
        for line in chapter.notes:
            out.print(f"{chapter.title}: {line}")
        if chapter.failed:
            out.print(f"{chapter.title}: FAILED: {chapter.failed}", style="red")
        for text in chapter.tables:
            out.print(f"\n{chapter.title}: {text}")


def write(path: Path, chapters: Sequence[Chapter], quick: bool) -> None:
    """Write the figures as Markdown, with what each means, and the charts into the folder ``images`` beside it."""
    lines = [
        "# Performance",
        "",
        f"Measured by `make bench` on {datetime.now(UTC):%-d %B %Y}, on {machine()}. Each measurement runs in its own "
        "process, and both sides of a ratio are measured in the same run. Short measurements are repeated in turns; "
        "the ratio is that of the medians. Seconds depend on the machine and its load, ratios much less.",
        "",
        *(["**A quick run with a tenth of the data. Its ratios mean little.**", ""] if quick else []),
        *_lines(HEADS, [figure.cells for chapter in chapters for figure in chapter.figures]),
    ]
    for chapter in chapters:
        lines += ["", f"## {chapter.title}", ""]
        if chapter.chart:
            picture = path.parent / "images" / chapter.chart.name
            picture.parent.mkdir(exist_ok=True)
            picture.write_text(chapter.chart.svg)
            lines += [f"![{chapter.chart.text}](images/{chapter.chart.name})", ""]
        lines += [chapter.meaning.strip()]
        lines += ["", *(f"- {line}" for line in chapter.notes)] if chapter.notes else []
        lines += ["", f"**Failed:** {chapter.failed}"] if chapter.failed else []
        lines += [line for text in chapter.tables for line in ("", text)]
    path.write_text("\n".join(lines) + "\n")


def machine() -> str:
    """Return the machine's cores and memory, in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores and {memory:.0f} GiB of memory"


def markdown_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of measurements below its title. The first column has words."""
    return "\n".join([f"{title}:", "", *_lines(heads, rows)])


def _lines(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    alignment = ALIGNMENT if heads == HEADS else ("---", *("---:" for _ in heads[1:]))
    return ["| " + " | ".join(row) + " |" for row in (heads, alignment, *rows)]


def _number(value: float, unit: str) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}".strip()
