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

HEADS = ("figure", "ours", "against", "theirs", "ratio", "target", "result")
# Words to the left, numbers to the right.
ALIGNMENT = ("---", "---:", "---", "---:", "---:", "---:", "---")


@dataclass(frozen=True)
class Figure:
    """A measurement in ``unit`` and, where there is one, the measurement that it is compared with.

    Less is better then, and ``target`` limits the ratio. With ``times_less`` the ratio is theirs / ours and at least
    the target; without, it is ours / theirs and at most the target.
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
        if not self.against:
            return True
        return self.ratio >= self.target if self.times_less else self.ratio <= self.target

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the figure's row of the table."""
        ours = _number(self.ours, self.unit)
        if not self.against:
            return (self.name, ours, "", "", "", "", "")
        less, bound = (" less", "≥") if self.times_less else ("", "≤")
        target = f"{bound} {self.target:g}×{less}"
        verdict = "reached" if self.reached else "NOT reached"
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
    """The figures of one module, what they mean, and one line for everything else that the run showed."""

    title: str
    meaning: str
    figures: Sequence[Figure]
    notes: Sequence[str]


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


def write(path: Path, chapters: Sequence[Chapter], quick: bool) -> None:
    """Write the figures as Markdown, with what each means."""
    lines = [
        "# Performance",
        "",
        f"Measured by `make bench` on {datetime.now(UTC):%-d %B %Y}, on {machine()}. Each measurement runs in its own "
        "process, and both sides of a ratio are measured in the same run. Short measurements are repeated in turns; "
        "the ratio is that of the medians. Seconds depend on the machine and its load, ratios much less.",
        "",
        *(["**A quick run with a tenth of the data. Its ratios mean little.**", ""] if quick else []),
        *_markdown_table([figure for chapter in chapters for figure in chapter.figures]),
    ]
    for chapter in chapters:
        lines += ["", f"## {chapter.title}", "", chapter.meaning.strip(), "", *(f"- {line}" for line in chapter.notes)]
    path.write_text("\n".join(lines) + "\n")


def machine() -> str:
    """Return the machine's cores and memory, in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores and {memory:.0f} GiB of memory"


def _markdown_table(figures: Sequence[Figure]) -> list[str]:
    rows = [HEADS, ALIGNMENT, *(figure.cells for figure in figures)]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _number(value: float, unit: str) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"
