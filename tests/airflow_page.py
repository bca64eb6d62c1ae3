"""Sign in to Airflow's web UI and open a DAG run, as graph or grid, with times in New York time."""

from __future__ import annotations

import json
from pathlib import Path

from browsing import BrowserShot

from local.airflow import USER, LocalAirflow

# JavaScript: whether the page shows a graph of at least that many tasks.
GRAPH_OF = "document.querySelectorAll('.react-flow__node').length >= {tasks}"
CHOOSE = """
await page.fill("input[name=username]", USER);
await page.fill("input[name=password]", PASSWORD);
await page.click("button[type=submit]");
await page.waitForURL((url) => url.pathname.startsWith("/dags/process_bars/"));
await page.evaluate(() => {
  const choose = (name, value) => localStorage.setItem(name, JSON.stringify(value));
  choose("default_dag_view", VIEW); choose("timezone", "America/New_York");
  const panels = { expandToSizes: {}, layout: [78, 22] };  // more room for the graph
  choose("react-resizable-panels:graph-ltr", { "details-panel,main-panel": panels });
});
await page.reload();
await page.waitForFunction(() => (DRAWN) && /success/i.test(document.body.innerText)
  && !/no status/i.test(document.body.innerText), null, { timeout: 60000 });
await page.waitForTimeout(2000);  // the layout is animated
return await page.evaluate(() => document.body.innerText);
"""


def look_at_run(
    shot: BrowserShot,
    airflow: LocalAirflow,
    run: str,
    view: str,
    drawn: str,
    to: Path,
    *,
    width: int = 1400,
    height: int = 860,
) -> str:
    """Save a picture of a run of process_bars and return the page's text in lower case. ``view``: graph or grid."""
    script = CHOOSE.replace("VIEW", json.dumps(view)).replace("DRAWN", drawn)
    script = script.replace("USER", json.dumps(USER)).replace("PASSWORD", json.dumps(airflow.password))
    page = shot(f"{airflow.url}/dags/process_bars/runs/{run}", run=script, screenshot=to, width=width, height=height)
    assert page.outside == []
    return str(page.value).lower()
