"""Gives the visual job its graph, which CloudFormation cannot.

Deployment runs it when graph, SQL or places changed. The job itself is the stack's: an update of the stack names no
graph, and by that leaves this one as it is.
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
# A job that says how many workers it has tells its capacity as well, and is refused if that is sent back.
DERIVED = {"AllocatedCapacity", "MaxCapacity"}


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Returns how many nodes the job has got. A graph that Glue does not take fails the deployment."""
    name, glue = os.environ["JOB"], boto3.client("glue")
    graph = nodes({place: os.environ[place.upper()] for place in PLACES})
    # An update replaces the whole definition, so what the stack has given goes along.
    known = set(glue.meta.service_model.shape_for("JobUpdate").members) - DERIVED
    job = glue.get_job(JobName=name)["Job"]
    kept = {key: value for key, value in job.items() if key in known}
    glue.update_job(JobName=name, JobUpdate=kept | {"CodeGenConfigurationNodes": graph})
    return {"job": name, "nodes": len(graph)}


def nodes(places: dict[str, str]) -> dict[str, Any]:
    """The graph with these places in it."""
    graph: dict[str, Any] = json.loads(Template(GRAPH.read_text()).substitute(places))["CodeGenConfigurationNodes"]
    return graph
