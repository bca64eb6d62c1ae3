"""The benchmarks measure whole process trees, never wait for a full pipe, and keep what succeeded when a part fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest

from barflow.errors import BarflowError
from benchmarks import __main__ as program
from benchmarks import growth
from benchmarks.chart import Bar, Panel, bars
from benchmarks.figures import Chapter, Figure
from benchmarks.processes import run

LONG_ANSWER = """
import json, sys
print("begun", file=sys.stderr)
print(json.dumps({"text": "x" * 300_000}))
print("ended", file=sys.stderr)
"""
CHILD_WITH_100_MIB = """
import subprocess, sys
held = "import time; held = bytearray(100 << 20); held[::4096] = bytes([1]) * 25600; time.sleep(1)"
subprocess.run([sys.executable, "-c", held], check=True)
print("{}")
"""


@pytest.mark.timeout(60)
def test_a_long_answer_does_not_block_the_program() -> None:
    ended = run([sys.executable, "-c", LONG_ANSWER], {})
    assert len(ended.result["text"]) == 300_000
    assert [text for _, text in ended.lines] == ["begun", "ended"]


def test_memory_includes_what_a_program_starts() -> None:
    ended = run([sys.executable, "-c", CHILD_WITH_100_MIB], {})
    assert 100 < ended.tree < 200
    assert ended.peak < 60


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_is_that_of_the_size_in_the_time(power: float) -> None:
    runs = [growth.Run(size, 0, {"process": 0.01 * size**power}, {}) for size in growth.SIZES]
    assert growth.exponent(runs, "process") == pytest.approx(power)


def test_the_chart_names_each_tool_and_has_its_own_background_in_both_schemes() -> None:
    svg = bars([Panel("load <1,000> rows", [Bar("Barflow", 2.5, 300, ours=True), Bar("A & B", 25, 3000)])])
    root = ElementTree.fromstring(svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"load <1,000> rows", "Barflow", "A & B", "2.5 s", "25.0 s", "3,000 MiB"} <= set(texts)
    widths = [float(box.get("width", 0)) for box in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[3] == pytest.approx(10 * widths[1], rel=0.01)
    light, dark = svg.split("prefers-color-scheme: dark")
    assert ".page { fill: #ffffff" in light
    assert ".page { fill: #0d1117" in dark


def test_a_chapter_that_fails_keeps_the_figures_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(bench: object) -> Chapter:
        raise BarflowError("process failed: no memory")

    def measured(bench: object) -> Chapter:
        return Chapter("Measured", "", [Figure("a load", 2, "s", "a tool", 3)], [])

    @contextmanager
    def opened(quick: bool, log: object) -> Iterator[object]:
        yield type("Bench", (), {"log": staticmethod(log)})

    monkeypatch.setattr(program, "opened", opened)
    monkeypatch.setattr(program, "CHAPTERS", {"first": failing, "second": measured})
    assert program.main(["--out", str(tmp_path / "page.md")]) == 1
    page = (tmp_path / "page.md").read_text()
    assert "**Failed:** process failed: no memory" in page
    assert "| a load | 2.00 s | a tool | 3.00 s | 0.67× |  |  |" in page  # without a target there is no verdict
    assert "FAILED: process failed: no memory" in capsys.readouterr().out
