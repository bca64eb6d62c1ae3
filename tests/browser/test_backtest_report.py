"""The report of a backtest shows its figures on every screen, as text, and sends no request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from backtest_summaries import HOSTILE, summary
from browsing import BrowserShot

from barflow.backtest.report import write_report
from barflow.errors import BarflowError

READ = """return page.evaluate(() => ({
  width: document.documentElement.scrollWidth,
  overview: [...document.querySelectorAll('.scroll table')[0].rows].map((row) => row.innerText.split('\\t')),
  after: [...document.querySelectorAll('.after tbody tr')].map((row) => row.innerText.split('\\t')),
  months: [...document.querySelectorAll('.months rect')].map((bar) => bar.getBoundingClientRect().height),
  moved: [...document.querySelectorAll('#s1 .sensitivity text:not(.tick)')].map((text) => text.textContent),
  means: [...document.querySelectorAll('.returns circle')].length,
  baselines: [...document.querySelectorAll('.returns .usual')].length,
  intervals: [...document.querySelectorAll('.returns .reach')].map((line) => line.getBoundingClientRect().width > 5),
  styled: getComputedStyle(document.querySelector('.own')).fill !== 'rgb(0, 0, 0)',
  images: document.querySelectorAll('img').length,
  title: document.querySelector('#h1').textContent,
  note: document.querySelector('.notice').textContent,
}))"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("report") / "report.html"
    write_report(made, summary(rule=HOSTILE, note=HOSTILE))
    return made


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_the_report_shows_the_figures_of_each_rule(
    browser_shot: BrowserShot, page: Path, width: int, scheme: str
) -> None:
    seen = browser_shot(page, run=READ, width=width, scheme=scheme)
    assert (seen.errors, seen.outside) == ([], [])
    found: dict[str, Any] = seen.value
    assert found["width"] == width, "it scrolls sideways"
    assert found["overview"][1:] == [
        [HOSTILE, "40", "+1.23 %", "−0.04 %", "52 % 45 % to 61 %", "50 %", "38.2", "5", "7 sessions"],
        ["never", "0", "–", "–", "–", "–", "0.0", "0", "22 sessions"],
    ]
    assert found["after"][:2] == [
        ["after 30 minutes", "3", "−0.20 %", "–", "+0.10 %", "33 %", "–", "50 %"],
        ["after 1 hour", "37", "+1.23 %", "+0.23 % to +2.23 %", "−0.04 %", "52 %", "45 % to 61 %", "50 %"],
    ]
    assert found["after"][4] == ["after 5 sessions", "0", "–", "–", "–", "–", "–", "–"]
    assert found["months"][0] > 10 * found["months"][1] > 0, "a bar is as high as its count"
    assert found["moved"] == ["12", "25", "40", "52", "71"]
    assert (found["means"], found["baselines"], found["intervals"]) == (4, 4, [True] * 3)
    assert found["styled"], "the policy does not allow the style"
    assert (found["images"], found["title"], found["note"]) == (0, HOSTILE, HOSTILE)


def test_a_report_that_cannot_be_written_names_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(BarflowError, match=r"could not be written.*The figures above are complete\..*run the backtest"):
        write_report(tmp_path / "report.html", summary())
    with pytest.raises(BarflowError, match="could not be written: File name too long"):
        write_report(tmp_path / f"{'x' * 252}.html", summary())
    assert [item.name for item in tmp_path.iterdir()] == ["report.html"]
