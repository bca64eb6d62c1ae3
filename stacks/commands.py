"""The command `barflow runbook`: write the operations runbook of a deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from barflow.cli.common import Env, out
from barflow.cli.rooms import command_app
from barflow.errors import BadInputError

runbook = command_app()


@runbook.command("runbook", epilog="Example:  barflow runbook --env dev --outputs cdk-outputs.json")
def write_runbook(
    env: Env,
    outputs: Annotated[Path, typer.Option(help="The file that cdk deploy --outputs-file wrote.")],
    to: Annotated[Path, typer.Option(help="Folder for runbook-ENV.md and runbook-ENV.html.")] = Path(),
) -> None:
    """Write the operations runbook of a deployment.

    It holds the deployment's real names, as Markdown and as HTML.
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
        out.print(str(path), markup=False)
