"""Copy the SQL of glue/ into the graph that Glue Studio shows, glue/visual_job.json.

    .venv/bin/python tools/visual_job.py        # after a change of an .sql file; a test fails until you run it

Edit the graph itself (nodes, edges, targets) in the JSON, or in Glue Studio, and copy it from there with
`aws glue get-job`. A transform has the name of the file whose SQL it runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from barflow.pipeline.frames import LONGEST_WINDOW

GLUE = Path(__file__).parents[1] / "glue"
GRAPH = GLUE / "visual_job.json"
NODES = "CodeGenConfigurationNodes"


def sql(name: str) -> str:
    """Return the SQL of that name: the job's own, or that of glue/visual, which replaces the job's Python."""
    own = GLUE / f"{name}.sql"
    text = (own if own.exists() else GLUE / "visual" / own.name).read_text()
    return text.format(longest_window=LONGEST_WINDOW)


def with_sql(graph: dict[str, Any]) -> dict[str, Any]:
    """Return the graph. Each transform has the SQL of the file with its name."""
    for node in graph[NODES].values():
        if transform := node.get("SparkSQL"):
            transform["SqlQuery"] = sql(transform["Name"])
    return graph


def main() -> None:
    """Write the graph with the current SQL."""
    GRAPH.write_text(json.dumps(with_sql(json.loads(GRAPH.read_text())), indent=2) + "\n")


if __name__ == "__main__":
    main()
