"""The browser reports what a page did: otherwise a page without errors would prove nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from browsing import BrowserShot

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "page.html"


def test_it_reports_errors_and_console_messages(browser_shot: BrowserShot, page: Path) -> None:
    page.write_text("<script>console.error('a complaint'); missing()</script>")
    assert browser_shot(page).errors == ["a complaint", "ReferenceError: missing is not defined"]


def test_a_script_that_fails_does_not_end_the_browser(browser_shot: BrowserShot, page: Path) -> None:
    page.write_text("<title>A page</title>")
    with pytest.raises(AssertionError, match="not there"):
        browser_shot(page, run="throw new Error('not there')")
    assert browser_shot(page, run="return page.title()").value == "A page"


def test_a_route_handler_that_fails_is_reported(browser_shot: BrowserShot, page: Path) -> None:
    page.write_text("<title>A page</title>")
    run = (
        "await new Promise(async (called) => {"
        " await page.route(/image/, () => { called(); throw new Error('no answer'); });"
        " await page.evaluate(() => { new Image().src = 'image' }); });"
        "return page.title()"
    )
    seen = browser_shot(page, run=run)
    assert (seen.errors, seen.value) == (["Error: no answer"], "A page")


def test_it_blocks_and_reports_every_request_to_another_host(browser_shot: BrowserShot, page: Path) -> None:
    page.write_text(
        '<img src="https://example.com/image"><link rel="stylesheet" href="https://example.com/style">'
        '<script>fetch("https://example.com/data").catch(() => {})</script>'
    )
    blocked = sorted(browser_shot(page, until="networkidle").outside)
    assert blocked == [f"https://example.com/{name}" for name in ("data", "image", "style")]


def test_it_takes_a_screenshot_in_the_requested_size_and_scheme(
    browser_shot: BrowserShot, page: Path, tmp_path: Path
) -> None:
    page.write_text("<title>A page</title>")
    asked = "[innerWidth, matchMedia('(prefers-color-scheme: dark)').matches, document.title]"
    seen = browser_shot(
        page, width=390, scheme="dark", screenshot=tmp_path / "shot.png", run=f"return page.evaluate(() => {asked})"
    )
    assert seen.value == [390, True, "A page"]
    assert (tmp_path / "shot.png").read_bytes().startswith(PNG)
