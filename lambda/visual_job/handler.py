"""Visual job function: set the graph of the Glue Studio job, which CloudFormation cannot do.

The deployment runs it when the graph, its SQL or its resources changed. The stack owns the job itself; an update of
the stack contains no graph and so keeps this one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from string import Template
from typing import Any

import boto3

GRAPH = Path(__file__).with_name("visual_job.json")
PLACES = ("connection", "database", "sessions", "table")
# Glue returns these for a job with a number of workers, and rejects an update that contains them.
DERIVED = {"AllocatedCapacity", "MaxCapacity"}


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Set the graph. Return the job and its number of nodes. A graph that Glue rejects fails the deployment."""
    name, glue = os.environ["JOB"], boto3.client("glue")
    graph = nodes({place: os.environ[place.upper()] for place in PLACES})
    # An update replaces the whole definition, so it repeats what the stack has set.
    known = set(glue.meta.service_model.shape_for("JobUpdate").members) - DERIVED
    job = glue.get_job(JobName=name)["Job"]
    kept = {key: value for key, value in job.items() if key in known}
    glue.update_job(JobName=name, JobUpdate=kept | {"CodeGenConfigurationNodes": graph})
    return {"job": name, "nodes": len(graph)}


def nodes(places: dict[str, str]) -> dict[str, Any]:
    """Return the graph for these resources: connection, database, sessions, table."""
    graph: dict[str, Any] = json.loads(Template(GRAPH.read_text()).substitute(places))["CodeGenConfigurationNodes"]
    return graph
