"""The browser tells what a page did: otherwise a silent page would prove nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from browsing import BrowserShot

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "page.html"


def test_it_hears_of_errors_and_of_what_the_console_complains(browser_shot: BrowserShot, page: Path) -> None:
    page.write_text("<script>console.error('a complaint'); missing()</script>")
    assert browser_shot(page).errors == ["a complaint", "ReferenceError: missing is not defined"]


def test_a_script_that_fails_fails_its_test_alone(browser_shot: BrowserShot, page: Path) -> None:
    page.write_text("<title>A page</title>")
    with pytest.raises(AssertionError, match="not there"):
        browser_shot(page, run="throw new Error('not there')")
    assert browser_shot(page, run="return page.title()").value == "A page"


@pytest.mark.parametrize(
    "body",
    [
        '<img src="https://example.com/x">',
        '<link rel="stylesheet" href="https://example.com/x">',
        '<script>fetch("https://example.com/x").catch(() => {})</script>',
    ],
)
def test_it_lets_no_request_out_and_names_it(browser_shot: BrowserShot, page: Path, body: str) -> None:
    page.write_text(body)
    assert browser_shot(page, until="networkidle").outside == ["https://example.com/x"]


def test_it_takes_a_picture_of_the_size_and_scheme_asked_for(
    browser_shot: BrowserShot, page: Path, tmp_path: Path
) -> None:
    page.write_text("<title>A page</title>")
    asked = "[innerWidth, matchMedia('(prefers-color-scheme: dark)').matches, document.title]"
    seen = browser_shot(
        page, width=390, scheme="dark", screenshot=tmp_path / "shot.png", run=f"return page.evaluate(() => {asked})"
    )
    assert seen.value == [390, True, "A page"]
    assert (tmp_path / "shot.png").read_bytes().startswith(PNG)
