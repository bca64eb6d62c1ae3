"""What does the rehearsal's page say? What it proves, what is real in it, and its last table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Done:
    """A step that went well: its name, its seconds, what it found."""

    name: str
    seconds: float
    found: str


TEXT = """# The rehearsal

`make rehearse` deploys an environment by the CDK CLI to a stand-in of AWS and lets what was deployed work: no account, no
Docker. Then it breaks it. `make rehearse ARGS="--to docs/rehearsal.md"` writes this page; `make test-all` and CI run it.

A step that is not as it should be ends it, with what was found. Each failed run must go red, leave no cluster, say why in
Slack and change nothing that readers see; the run after them must put all right, though its worker is killed twice.

## What is real, and what stands in

| part | here |
|---|---|
| templates, assets, triggers | the CDK CLI's own deployment to moto; a trigger's failure fails the deployment |
| functions | the deployed bundle with its deployed variables, a process per invocation |
| programs on EMR and Glue | spark-submit with the script, library, files and arguments that the deployment names, out of its bucket |
| clusters, job runs, crawls | move through AWS's states; what they are asked to start with must be in S3 |
| RDS | PostgreSQL; TLS and passwords are asked for at the deployed address, the users are those that the deployed function made |
| secrets, runtime contract | the deployed ones; the values from outside go in by the names of the made runbook |
| Athena | DuckDB, on the partitions that the crawler entered |
| Airflow | the real one, with LocalExecutor, the deployed DAGs and library, and connections out of the deployed secrets |
| MongoDB | SecantusDB, by its wire protocol |
| Twelve Data, Slack | stand-ins on loopback: the two addresses that differ from what was deployed |

It cannot tell of: rights (moto asks nobody for them; the stacks' tests judge the policies), the network between the parts,
packages that are built for AWS's processors, and how long AWS takes.

## The last one

{env}, two cores

| step | seconds | found |
|---|---:|---|
{rows}
| **all** | **{total:.0f}** | |
"""


def page(env: str, done: Sequence[Done]) -> str:
    """The page, in Markdown."""
    rows = "\n".join(f"| {_cell(step.name)} | {step.seconds:.1f} | {_cell(step.found)} |" for step in done)
    return TEXT.format(env=env, rows=rows, total=sum(step.seconds for step in done))


def _cell(text: str) -> str:
    indented = "&nbsp;&nbsp;" if text.startswith("  ") else ""
    return indented + text.strip().replace("|", "\\|")
