"""Write the SQL of glue/ into the graph that Glue Studio shows, glue/visual_job.json.

    .venv/bin/python tools/visual_job.py        # after a change of an .sql file; a test fails until then

Edit the graph itself (nodes, inputs, targets) in the JSON, or in Glue Studio and copy it from there with
`aws glue get-job`. A transform has the name of the table or step whose SQL it runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from barflow.pipeline.aggregate import aggregate_sql

GLUE = Path(__file__).parents[1] / "glue"
GRAPH = GLUE / "visual_job.json"
NODES = "CodeGenConfigurationNodes"


def sql(name: str) -> str:
    """Return the SQL of a transform: the job's own, or the file in glue/visual that replaces a step in Python."""

    def read(stem: str) -> str:
        own = GLUE / f"{stem}.sql"
        return (own if own.exists() else GLUE / "visual" / own.name).read_text()

    return aggregate_sql(name, read)


def with_sql(graph: dict[str, Any]) -> dict[str, Any]:
    """Return the graph with the current SQL in each transform."""
    for node in graph[NODES].values():
        if transform := node.get("SparkSQL"):
            transform["SqlQuery"] = sql(transform["Name"])
    return graph


def main() -> None:
    """Rewrite glue/visual_job.json."""
    GRAPH.write_text(json.dumps(with_sql(json.loads(GRAPH.read_text())), indent=2) + "\n")


if __name__ == "__main__":
    main()
