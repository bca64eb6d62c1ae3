"""The site builds without a warning, and a reader's browser loads it from one place only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from browsing import BrowserShot

from tools.reference_pages import PAGES

# Links that a reader follows, not files that the browser loads.
NOT_LOADED = {"a"}
LOADS = ("src", "href", "srcset", "data", "poster", "action")
CSS_LOADS = re.compile(r"(?:url\(|@import)\s*['\"]?\s*(?P<url>[^'\")\s]+)")
OUTSIDE = re.compile(r"^(?:\w+:)?//")


class _Loaded(HTMLParser):
    """Collects every address that a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in NOT_LOADED:
            self.found += [value for name, value in attrs if name in LOADS and value]


def loaded(site: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file of the site with each address that it loads."""
    for path in site.rglob("*.html"):
        page = _Loaded()
        page.feed(path.read_text())
        yield from ((path, address) for address in page.found)
        yield from ((path, found["url"]) for found in CSS_LOADS.finditer(path.read_text()))
    for path in site.rglob("*.css"):
        yield from ((path, found["url"]) for found in CSS_LOADS.finditer(path.read_text()))


def test_no_page_loads_a_script_style_font_or_picture_from_elsewhere(site: Path) -> None:
    addresses = list(loaded(site))
    assert len(addresses) > 300
    outside = [(path.relative_to(site).as_posix(), it) for path, it in addresses if OUTSIDE.match(it)]
    assert outside == []


def test_every_generated_page_is_in_the_site(site: Path) -> None:
    assert [uri for uri in PAGES if not (site / uri).with_suffix(".html").exists()] == []


def test_the_browser_draws_the_diagrams_and_asks_nobody_else(site_url: str, browser_shot: BrowserShot) -> None:
    drawn = """
        await page.waitForSelector("div.mermaid");
        return page.$eval("div.mermaid", (diagram) => diagram.getBoundingClientRect().height);
    """
    seen = browser_shot(f"{site_url}/how-it-works.html", until="networkidle", run=drawn)
    assert (seen.errors, seen.outside) == ([], [])
    assert seen.value > 80


def test_the_search_finds_a_setting(site_url: str, browser_shot: BrowserShot) -> None:
    # The page also answers what is typed so far: wait for the answer to the whole name.
    search = """
        await page.click("input[name=query]");
        await page.keyboard.type("BARFLOW_LAKE_URI");
        const answer = ".md-search-result__link[href*='reference/settings.html']";
        await page.waitForSelector(answer, { state: "attached" });
        return page.$$eval(answer, (links) => links.length);
    """
    seen = browser_shot(f"{site_url}/index.html", until="networkidle", run=search)
    assert (seen.errors, seen.outside) == ([], [])
    assert seen.value > 0
