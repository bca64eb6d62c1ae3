"""What is a figure, and how is it shown? Two measurements of one run, the ratio between them, and its target."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from rich.console import Console

from barflow.cli.terminal import table

HEADS = ("figure", "Barflow", "compared with", "its value", "ratio", "target", "result")
# Words to the left, numbers to the right.
RULE = ("---", "---:", "---", "---:", "---:", "---:", "---")


@dataclass(frozen=True)
class Figure:
    """A measurement in ``unit`` and, where there is one, what it is held against: less is better then.

    ``target`` bounds the ratio: how many times less ours is where ``times_less``, how many times theirs otherwise.
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
        return self.theirs / self.ours if self.times_less else self.ours / self.theirs

    @property
    def reached(self) -> bool:
        if not self.against:
            return True
        return self.ratio >= self.target if self.times_less else self.ratio <= self.target

    @property
    def cells(self) -> tuple[str, ...]:
        ours = _number(self.ours, self.unit)
        if not self.against:
            return (self.name, ours, "", "", "", "", "")
        less, bound = (" less", "≥") if self.times_less else ("", "≤")
        target = f"{bound} {self.target:g}×{less}"
        verdict = "reached" if self.reached else "not reached"
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
    """The figures of one module: what they mean, and what else the run showed, a line each."""

    title: str
    meaning: str
    figures: Sequence[Figure]
    seen: Sequence[str]


def middle(values: Iterable[float]) -> float:
    """The median of repeated measurements."""
    return median(values)


def show(chapters: Sequence[Chapter]) -> None:
    """All figures as one table on stdout, and below it what was seen."""
    shown = table(f"measured on {machine()}", HEADS, left=1)
    for chapter in chapters:
        for figure in chapter.figures:
            shown.add_row(*figure.cells, style="" if figure.reached else "yellow")
    out = Console(highlight=False, width=200)
    out.print(shown)
    for chapter in chapters:
        for line in chapter.seen:
            out.print(f"{chapter.title}: {line}", markup=False)


def write(path: Path, chapters: Sequence[Chapter], quick: bool) -> None:
    """The same as Markdown, with what each figure means."""
    lines = [
        "# Performance",
        "",
        f"`make bench` measured this on {datetime.now(UTC):%-d %B %Y}, on {machine()}. Each ratio compares two "
        "measurements of one run on one host, each in its own process. Short measurements are medians of repeats "
        "that take turns. Seconds depend on the host and on what else it does; ratios depend on it much less.",
        "",
        *(["**This was a quick run with a tenth of the data. Its ratios mean little.**", ""] if quick else []),
        *_markdown_table([figure for chapter in chapters for figure in chapter.figures]),
    ]
    for chapter in chapters:
        lines += ["", f"## {chapter.title}", "", chapter.meaning.strip(), "", *(f"- {line}" for line in chapter.seen)]
    path.write_text("\n".join(lines) + "\n")


def machine() -> str:
    """The machine by its cores and memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores and {memory:.0f} GiB of memory"


def _markdown_table(figures: Sequence[Figure]) -> list[str]:
    rows = [HEADS, RULE, *(figure.cells for figure in figures)]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _number(value: float, unit: str) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}"
