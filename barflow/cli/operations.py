"""The commands for those who deploy: `barflow runbook`, `barflow cost` and `barflow run`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from barflow.cli.common import Json, print_json
from barflow.errors import BadInputError

Env = Annotated[str, typer.Option(help="dev, staging or prod.")]


def runbook(
    env: Env,
    outputs: Annotated[Path, typer.Option(help="What cdk deploy --outputs-file wrote.")],
    to: Annotated[Path, typer.Option(help="Folder for runbook-ENV.md and runbook-ENV.html.")] = Path(),
) -> None:
    """Write the operations runbook of a deployment, with its real names, as Markdown and HTML."""
    from barflow.operations.runbook import html, markdown, read_outputs
    from stacks.outputs import OUTPUTS

    meanings = {(item.stack, item.key): item.meaning for item in OUTPUTS}
    text = markdown(env, read_outputs(env, outputs), meanings)
    for name, body in ((f"runbook-{env}.md", text), (f"runbook-{env}.html", html(f"Barflow {env}: runbook", text))):
        path = to / name
        try:
            to.mkdir(parents=True, exist_ok=True)
            path.write_text(body)
        except OSError as error:
            raise BadInputError(f"could not write {path}: {error.strerror}. Choose another folder with --to.") from None
        sys.stdout.write(f"{path}\n")


def cost(
    env: Env = "dev",
    symbols: Annotated[int | None, typer.Option(min=1, help="So many symbols instead of the environment's.")] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, help="So many process runs a session instead of those of the schedule.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate what an environment costs a month, by service, and what one run of the pipeline does."""
    from barflow.cli.terminal import console, table
    from config.cost import estimate
    from config.environments import environment
    from config.validation import ConfigError

    try:
        found = estimate(environment(env), symbols=symbols, runs_per_session=runs)
    except ConfigError as error:
        raise BadInputError(str(error)) from None
    if as_json:
        print_json(found.to_json())
        return
    count = found.runs_per_session
    title = f"{env}: {found.symbols} symbols, {count} process run{'s' if count > 1 else ''} a session"
    shown = table(title, ("service", "made of", "USD a month"), left=2)
    for line in sorted(found.lines, key=lambda line: -line.dollars):
        shown.add_row(line.service, line.basis, f"{line.dollars:,.2f}")
    shown.add_row("total", "", f"{found.total:,.2f}", style="bold")
    out = console()
    out.print(shown)
    out.print(f"one process run: {found.run_dollars:.2f} USD")
    out.print(f"list prices of {found.region} as of {found.prices_as_of}, without free tiers and taxes")


def run(
    env: Env,
    as_json: Json = False,
) -> None:
    """Process and aggregate once on AWS: cluster, Spark step, end of the cluster, Glue job, crawlers."""
    import time

    from barflow.operations.cluster_run import Clients, run_once
    from barflow.operations.deployment import read_contract

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    contract = read_contract(env)
    result = run_once(contract, Clients.of(contract.region), say, time.sleep)
    sys.stdout.write(json.dumps(result) + "\n" if as_json else f"{result['run_id']}: {result['outcome']}\n")
