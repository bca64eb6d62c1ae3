"""Operations runbook: the template runbook.md.j2, filled with the outputs of a deployment.

The input is the file of `cdk deploy --outputs-file`: {"Barflow-dev-Network": {"VpcId": "vpc-…"}, …}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from barflow.errors import BadInputError
from barflow.operations.warehouse_crawl import install_command

# Outputs that only some environments have.
OPTIONAL = {
    ("Ingestion", "IngestFunction"),
    ("Orchestration", "BalancerName"),
    ("Secrets", "LineageSecret"),
    ("Secrets", "AirflowUsersSecret"),
    ("Secrets", "WebhookSecret"),
    ("Secrets", "AppriseSecret"),
}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
pre {{ overflow-x: auto; padding: .8rem 1rem; border: 1px solid #8884; border-radius: 6px; background: #8881 }}
code {{ font: .9em ui-monospace, monospace }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
td, th {{ border-bottom: 1px solid #8884; padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top }}
h2 {{ margin-top: 2.2rem; border-bottom: 1px solid #8884 }}
@media print {{ pre {{ white-space: pre-wrap }} }}
</style></head><body>
{body}
</body></html>
"""


def read_outputs(env: str, path: Path) -> dict[str, dict[str, str]]:
    """Return the outputs of an environment by stack (Network, …) and key. Raise BadInputError for any other file."""
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise BadInputError(
            f"--outputs {path} cannot be read ({error.strerror}). "
            f"Write it with `npx cdk deploy --all -c env={env} --outputs-file {path}`."
        ) from None
    except ValueError:
        raise BadInputError(
            f"--outputs {path} is not JSON: give the file that `cdk deploy --outputs-file` wrote"
        ) from None
    prefix = f"Barflow-{env}-"
    stacks = found if isinstance(found, dict) else {}
    mine = {name.removeprefix(prefix): values for name, values in stacks.items() if name.startswith(prefix)}
    if not mine:
        there = sorted({name.split("-")[1] for name in stacks if name.startswith("Barflow-")}) or ["none"]
        raise BadInputError(f"--outputs {path} has no outputs of {env}. Environments in it: {', '.join(there)}.")
    return mine


def markdown(env: str, outputs: Mapping[str, Mapping[str, str]], meanings: Mapping[tuple[str, str], str]) -> str:
    """Return the runbook in Markdown. ``meanings`` describes each output by (stack, key).

    Raises BadInputError that names the outputs that are missing.
    """
    from jinja2 import Environment, StrictUndefined

    missing = [f"{stack}.{key}" for stack, key in meanings if key not in outputs.get(stack, {})]
    missing = [name for name in missing if tuple(name.split(".")) not in OPTIONAL]
    if missing:
        raise BadInputError(
            f"the outputs of {env} lack {', '.join(missing)}: deploy all stacks with this version, then run it again"
        )
    table = [
        {"stack": stack, "meaning": meaning, "value": outputs[stack][key]}
        for (stack, key), meaning in meanings.items()
        if key in outputs.get(stack, {})
    ]
    values: dict[str, Any] = {stack: dict(found) for stack, found in outputs.items()}
    for stack, key in OPTIONAL:
        values.setdefault(stack, {}).setdefault(key, "")
    text = resources.files(__package__).joinpath("runbook.md.j2").read_text()
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701  Markdown
    return environment.from_string(text).render(env=env, table=table, install_command=install_command, **values)


def html(title: str, text: str) -> str:
    """Return the Markdown as a complete HTML page."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    return PAGE.format(title=escape(title), body=body)
