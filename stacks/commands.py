"""The commands `barflow runbook` and `barflow preflight`: a deployment's runbook, and checks of its account."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from barflow.cli.checks import report_checks
from barflow.cli.common import Env, Json, log, out
from barflow.cli.rooms import command_app
from barflow.errors import BadInputError

if TYPE_CHECKING:
    from barflow.operations.checks import Check
    from barflow.operations.preflight.account import Account
    from config.environment import Environment

runbook, preflight = command_app(), command_app()


@runbook.command("runbook", epilog="Example:  barflow runbook --env dev --outputs cdk-outputs.json")
def write_runbook(
    env: Env,
    outputs: Annotated[Path, typer.Option(help="The file that `cdk deploy --outputs-file` wrote.")],
    to: Annotated[Path, typer.Option(help="Folder for runbook-ENV.md and runbook-ENV.html.")] = Path(),
) -> None:
    """Write the operations runbook of a deployment.

    The runbook has the names of your deployment. It is written as Markdown and as HTML.
    """
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
        out.print(str(path))


@preflight.command("preflight", epilog="Example:  barflow preflight --env dev")
def check_account(
    env: Env,
    assembly: Annotated[
        Path | None, typer.Option(help="Check the templates in this folder (default: make them now).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the AWS account before a deployment.

    It reads the account of your profile and changes nothing. It prints one line per check, and below it the command
    that fixes a problem. It exits 1 if a deployment or its first run would fail. A note does not change the exit code.
    """
    from barflow.operations.preflight.account import find_account
    from config.environments import environment
    from config.validation import ConfigError

    try:
        settings = environment(env)
    except ConfigError as error:
        raise BadInputError(str(error)) from None
    first, account = find_account(settings.account, settings.region)
    checks = chain([first], _checks(settings, account, assembly) if account else ())
    advice = ". Nothing was changed. Fix them, then run this command again."
    report_checks(checks, _show, as_json=as_json, advice=advice)


def _checks(settings: Environment, account: Account, assembly: Path | None) -> Iterator[Check]:
    """Yield the checks of the account, with the templates of an assembly or with new ones."""
    from barflow.operations.preflight.run import run
    from stacks.preflight import needs_of, stacks_of, synthesize
    from stacks.templates import Resolver

    with tempfile.TemporaryDirectory(prefix="barflow-preflight-") as folder:
        if assembly is None:
            log(f"making the templates of {settings.name}")
            synthesize(settings.name, Path(folder))
        stacks = stacks_of(settings.name, assembly or Path(folder))
    resolver = Resolver(stacks, account.number, account.region, account.partition)
    yield from run(needs_of(settings, resolver), account)


def _show(check: Check) -> None:
    """Print a check on one line, and what fixes it on the next one."""
    mark = "FAIL" if not check.ok else "note" if check.fix else "ok"
    out.print(f"{mark:<4}  {check.name}: {check.found}")
    if check.fix:
        out.print(f"      {check.fix}")
