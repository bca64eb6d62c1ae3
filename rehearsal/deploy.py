"""`make deploy-local`: does the application deploy? Bootstrap, deploy, deploy again, tear down, against the emulator.

The deployment is the CDK CLI's own, of what `cdk synth` makes; the outputs it writes stay in cdk-outputs.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from barflow.errors import BarflowError
from emulators.aws.server import ACCOUNT, REGION, AwsEmulator

ROOT = Path(__file__).parents[1]
BOTH_KEYS = ("-c", "allow_data_deletion=true")


class Cdk:
    """The CDK CLI on one environment and the emulator. Each method raises BarflowError with the CLI's own words."""

    def __init__(self, aws: AwsEmulator, env: str, folder: Path) -> None:
        self._env, self._folder = env, folder
        own_bin = str(Path(sys.executable).parent)
        self._environment = aws.environment() | {
            "PATH": os.pathsep.join((own_bin, os.environ["PATH"])),
            "CDK_DISABLE_VERSION_CHECK": "1",
            "CDK_DISABLE_CLI_TELEMETRY": "true",
        }

    def synth(self, *more: str) -> str:
        """Makes the templates and assets that all later steps use, in place of those before."""
        return self._run("synth", "--quiet", "--output", str(self._folder), "-c", f"env={self._env}", *more)

    def bootstrap(self) -> str:
        return self._on_assembly("bootstrap", f"aws://{ACCOUNT}/{REGION}")

    def deploy(self, outputs: Path) -> str:
        # Directly, since moto mixes up change sets of one name; the stacks that come of it are the same.
        how = ("--all", "--require-approval", "never", "--method", "direct")
        return self._on_assembly("deploy", *how, "--outputs-file", str(outputs))

    def destroy(self) -> str:
        return self._on_assembly("destroy", "--all", "--force")

    def _on_assembly(self, command: str, *arguments: str) -> str:
        return self._run(command, "--app", str(self._folder), *arguments)

    def _run(self, command: str, *arguments: str) -> str:
        cli = ROOT / "node_modules" / "aws-cdk" / "bin" / "cdk"
        if not cli.exists():
            raise BarflowError("the CDK CLI is not installed: run `make setup`")
        done = subprocess.run(
            ["node", str(cli), command, *arguments],
            cwd=ROOT,
            env=self._environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            raise BarflowError(f"cdk {command} failed: {done.stdout.strip()[-2000:]}")
        return done.stdout


def unchanged(text: str) -> bool:
    """Whether a deployment, by what the CLI printed, found every stack as it should be."""
    marks = [line for line in text.splitlines() if line.strip().startswith("✅")]
    return bool(marks) and all("(no changes)" in line for line in marks)


def rehearse(env: str, outputs: Path, say: Callable[[str], None]) -> None:
    """All steps, each told with its seconds. Raises BarflowError at the first that is not as it should be."""

    def step(name: str, work: Callable[[], str]) -> str:
        begun = time.monotonic()
        printed = work()
        say(f"{name:<40} {time.monotonic() - begun:6.1f} s")
        return printed

    with tempfile.TemporaryDirectory() as folder, AwsEmulator() as aws:
        cdk = Cdk(aws, env, Path(folder) / "assembly")
        step("synthesize", cdk.synth)
        step("bootstrap the account", cdk.bootstrap)
        step("deploy every stack", lambda: cdk.deploy(outputs))
        again = step("deploy again: no stack changes", lambda: cdk.deploy(outputs))
        if not unchanged(again):
            raise BarflowError(f"the second deployment changed something: {again[-2000:]}")
        step("tear down: refused, data is protected", lambda: _refused(cdk.destroy))
        step("synthesize with both keys to deletion", lambda: cdk.synth(*BOTH_KEYS))
        step("deploy with both keys", lambda: cdk.deploy(Path(folder) / "outputs.json"))
        step("tear down", cdk.destroy)
    keys = sum(not key.startswith("Exports") for stack in json.loads(outputs.read_text()).values() for key in stack)
    say(f"{keys} outputs in {outputs}")


def _refused(destroy: Callable[[], str]) -> str:
    try:
        destroy()
    except BarflowError as error:
        if "TerminationProtection" in str(error):
            return str(error)
        raise
    raise BarflowError("a stack that holds data could be deleted without the second key")


def main() -> int:
    options = argparse.ArgumentParser(prog="make deploy-local", description=__doc__.split("\n", 1)[0])
    options.add_argument("--env", default="dev")
    options.add_argument("--outputs", type=Path, default=Path("cdk-outputs.json"))
    given = options.parse_args()
    try:
        rehearse(given.env, given.outputs, lambda text: print(text, file=sys.stderr, flush=True))
    except BarflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
