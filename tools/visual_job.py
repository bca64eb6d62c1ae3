"""Puts the SQL of glue/ into the graph that Glue Studio shows, glue/visual_job.json.

    .venv/bin/python tools/visual_job.py        # after a change of an .sql file; a test says when it is due

The graph itself (nodes, what feeds what, targets) is edited in the JSON, or in Glue Studio and copied from there with
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
    """The SQL of that name, whole: the job's own or, in glue/visual, what stands in for the job's Python."""
    own = GLUE / f"{name}.sql"
    text = (own if own.exists() else GLUE / "visual" / own.name).read_text()
    return text.format(longest_window=LONGEST_WINDOW)


def with_sql(graph: dict[str, Any]) -> dict[str, Any]:
    """The graph, each transform with the SQL of the file of its name."""
    for node in graph[NODES].values():
        if transform := node.get("SparkSQL"):
            transform["SqlQuery"] = sql(transform["Name"])
    return graph


def main() -> None:
    GRAPH.write_text(json.dumps(with_sql(json.loads(GRAPH.read_text())), indent=2) + "\n")


if __name__ == "__main__":
    main()
