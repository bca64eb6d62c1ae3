"""A click on a candle opens the panel about its bar. The keyboard reaches every bar, and Escape closes the panel."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from browsing import BrowserShot
from harness import revised
from pages import NOW, READY, served, stage
from pymongo.database import Database

from barflow.alerts.message import Message
from barflow.alerts.outbox import Outbox
from barflow.market.sessions import last_sessions
from barflow.market.validation import Rejected
from barflow.staging.connection import Document, connect
from barflow.staging.quarantine import Quarantine
from barflow.staging.raw_answers import RawAnswers
from barflow.staging.sessions import Staging, from_document
from barflow.twelvedata.client import RawResponse

Look = Callable[..., Any]
TRADED = last_sessions(NOW, 1)[0]
# The bar before the newest one. Its volume was revised.
REVISED = TRADED.slots[16]
SHOWN = "await page.waitForSelector('#why[data-shown]:not([data-shown=\"\"])');"
# The title, the story's lines, the missing links, whether the panel is open, and the id of the focused element.
STATE = """
(() => { const text = (query) => [...document.querySelectorAll(query)].map((item) => item.textContent);
  return { title: text('#why-title')[0], story: text('#why .story li'), missing: text('#why .missing li'),
    rows: text('#why tbody tr'), body: text('#why-body')[0], open: !document.querySelector('#why').hidden,
    focus: document.activeElement.id, json: document.querySelector('#why-json').getAttribute('href'),
    wide: document.documentElement.scrollWidth <= innerWidth }; })()
"""
READ = f"return await page.evaluate(() => {STATE});"
# Clicks the candle of the revised bar: the first place from the right at which the legend does not show the newest.
CLICK = """
const box = await page.locator('#chart').boundingBox();
let x = box.x + box.width - 75;
for (; x > box.x && !(await page.textContent('#legend time')).endsWith('10:50'); x -= 2) {
  await page.mouse.move(x, box.y + 120);
}
await page.mouse.click(x + 2, box.y + 120);
"""


def row(close: float, volume: int) -> dict[str, str]:
    numbers = {"open": 100.16, "high": 101.16, "low": 99.16, "close": close, "volume": volume}
    return {"datetime": f"{REVISED:%Y-%m-%d %H:%M:%S}", **{name: str(value) for name, value in numbers.items()}}


def revise(database: Database[Document]) -> None:
    """Store a revision of the newest bar with its answer, a rejected row with markup, and an alert."""
    staging, now = Staging(database), datetime.now(UTC)
    (document,) = staging.between("AAPL", f"{TRADED.session_date}", f"{TRADED.session_date}")
    later = now + timedelta(seconds=1)
    body = json.dumps({"values": [row(100.16, 2000)], "status": "ok"}).encode()
    RawAnswers(database).store(RawResponse(body, ("AAPL",), later, 200), "run-2")
    staging.save([(revised(from_document(document), 16, volume=2000), later)], "run-2")
    Quarantine(database).ensure()
    broken = {**row(100.16, 1), "note": "<img src=x onerror=alert(1)>"}
    Quarantine(database).add([Rejected("AAPL", broken, ("ohlc_inconsistent",))], "run-1", now)
    alert = Message(
        schema_version=1, id="level_100", rule="level_100", kind="level", symbol="AAPL", severity="warning",
        session_date=TRADED.session_date, bar_start=REVISED, direction="up", value=100.16, unit="dollars",
        reference=100, price=100.16, text="AAPL rose to 100.16, through 100.00", created_at=later,
    )  # fmt: skip
    Outbox(database).add([(alert, ["sse", "slack"])])


@pytest.fixture(scope="module")
def look_at_bar(browser_shot: BrowserShot, mongodb_uri: str, module_warehouse_dsn: str) -> Iterator[Look]:
    """What a script returned on the page of AAPL, whose newest bar is revised. The page logs no error."""
    database = connect(mongodb_uri, f"test_{uuid.uuid4().hex[:12]}")
    stage(database, "AAPL", 18)
    stage(database, "MSFT", 18)
    revise(database)

    def look(run: str, **options: object) -> Any:
        seen = browser_shot(url, run=READY + run, **options)
        # Chromium logs each answer 404, which is a bar that does not exist.
        assert ([item for item in seen.errors if "404" not in item], seen.outside) == ([], [])
        return seen.value

    with served(database, module_warehouse_dsn) as url:
        yield look
    database.client.close()


def test_a_click_on_a_candle_shows_the_story_of_its_bar(look_at_bar: Look) -> None:
    found = look_at_bar(CLICK + SHOWN + READ)
    assert found["title"] == "AAPL, bar of Thu, 17 Jul 2025, 10:50"
    assert (found["open"], found["focus"]) == (True, "why-close")
    story = "\n".join(found["story"])
    places = [story.index(part) for part in ("The bar opens", "Version 0", "Version 1", "through 100.00")]
    assert places == sorted(places)
    assert "Rejected: ohlc_inconsistent" in story
    assert "<img src=x onerror=alert(1)>" in story, "text is text, never markup"
    assert "answer of run-2: HTTP 200, 1 symbol, 1 credit" in story
    assert '"volume":"2000"' in story
    assert any("The answer of version 0" in line for line in found["missing"])
    assert any("no access to the lake" in line for line in found["missing"])
    assert found["rows"][0] == "MongoDB100.16101.1699.16100.162,000"
    assert "slack: waits" in found["body"]
    assert found["json"] == "/api/why?symbol=AAPL&time=2025-07-17T14%3A50Z"


def test_the_keyboard_opens_the_panel_walks_the_bars_and_closes_it(look_at_bar: Look) -> None:
    found = look_at_bar(
        "const found = []; const look = async () => found.push(await page.evaluate(() => " + STATE + "));"
        "const shown = (time) => page.waitForSelector(`#why[data-shown*='${time}']`);"
        "await page.focus('#why-open'); await page.keyboard.press('Enter'); await shown('T14:55'); await look();"
        "await page.focus('#why-before'); await page.keyboard.press('Enter'); await shown('T14:50'); await look();"
        "await page.focus('#why-after'); await page.keyboard.press('Enter'); await shown('T14:55');"
        "await page.keyboard.press('Enter'); await page.waitForFunction(() =>"
        " document.querySelector('#why-body').textContent.includes('no bar')); await look();"
        "await page.keyboard.press('Escape'); await look(); return found;"
    )
    opened, before, after, _ = found
    assert [item["open"] for item in found] == [True, True, True, False]
    assert [item["focus"] for item in found] == ["why-close", "why-before", "why-after", "why-open"]
    assert before["title"].endswith("10:50")
    assert (len(opened["story"]), len(before["story"])) == (3, 6)
    assert "The stored bars next to it open at 2025-07-17 10:55 New York." in after["body"]
    assert opened["title"].endswith("10:55")


def test_a_longer_candle_shows_its_first_bar_and_another_symbol_closes_the_panel(look_at_bar: Look) -> None:
    hour = look_at_bar(
        "await page.click('#interval [data-value=\"1h\"]'); await page.waitForSelector('[data-shown=\"AAPL 1h\"]');"
        "await page.click('#why-open');" + SHOWN + READ
    )
    assert hour["title"] == "AAPL, bar of Thu, 17 Jul 2025, 10:30"
    assert not look_at_bar(
        "await page.click('#why-open');" + SHOWN + "await page.click('[data-symbol=MSFT]');"
        "await page.waitForSelector('[data-shown=\"MSFT 5min\"]');" + READ
    )["open"]


def test_the_answer_of_a_bar_that_was_left_is_dropped(look_at_bar: Look) -> None:
    found = look_at_bar(
        "let free; const held = new Promise((done) => { free = done; }); let count = 0;"
        "await page.route('**/api/why?*', async (route) => { if (++count === 1) await held; await route.continue(); });"
        "await page.click('#why-open'); await page.click('#why-before');"
        "await page.waitForSelector(\"#why[data-shown*='T14:50']\"); free();"
        "await page.waitForTimeout(400);" + READ
    )
    assert found["title"].endswith("10:50")
    assert len(found["story"]) == 6


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("light", {}),
        ("dark", {"scheme": "dark"}),
        ("medium", {"width": 1000}),
        ("narrow", {"width": 390, "height": 844}),
    ],
)
def test_the_panel_fits_every_width_and_scheme(
    look_at_bar: Look, picture: Callable[[str], Path], name: str, options: dict[str, Any]
) -> None:
    run = "await page.evaluate(() => document.querySelector('#why-open').click());" + SHOWN
    inside = (
        "return await page.evaluate(() => { const { left, right, top, bottom } = "
        "document.querySelector('#why').getBoundingClientRect();"
        "return left >= 0 && right <= innerWidth && top >= 0 && bottom <= innerHeight"
        " && document.querySelector('#why-body').scrollWidth <= document.querySelector('#why-body').clientWidth; });"
    )
    assert look_at_bar(run + inside, screenshot=picture(f"why-{name}.png"), **options)
