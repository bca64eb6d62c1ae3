"""Open a DAG run in Airflow's web UI, as graph or grid, with times in New York time."""

from __future__ import annotations

import json
from pathlib import Path

from browsing import BrowserShot

# JavaScript: whether the page shows a graph of at least that many tasks.
GRAPH_OF = "document.querySelectorAll('.react-flow__node').length >= {tasks}"
CHOOSE = """
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
    shot: BrowserShot, url: str, run: str, view: str, drawn: str, to: Path, *, width: int = 1400, height: int = 860
) -> str:
    """Save a picture of a run of process_bars and return the page's text in lower case. ``view``: graph or grid."""
    script = CHOOSE.replace("VIEW", json.dumps(view)).replace("DRAWN", drawn)
    page = shot(f"{url}/dags/process_bars/runs/{run}", run=script, screenshot=to, width=width, height=height)
    assert page.outside == []
    return str(page.value).lower()
