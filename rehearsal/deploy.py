"""`make deploy-local`: bootstrap, deploy, deploy again and tear down an environment on the AWS emulator.

The CDK CLI deploys what `cdk synth` makes. The outputs that it writes stay in cdk-outputs.json.
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
from barflow.progress import Log
from emulators.aws.server import ACCOUNT, REGION, AwsEmulator, EmulatorError

ROOT = Path(__file__).parents[1]
ALLOW_DATA_DELETION = ("-c", "allow_data_deletion=true")


class Cdk:
    """The CDK CLI for one environment on the emulator. Each method raises BarflowError with the CLI's output."""

    def __init__(self, aws: AwsEmulator, env: str, folder: Path, *, checkout: Path = ROOT) -> None:
        self._env, self._folder, self._checkout = env, folder, checkout
        own_bin = str(Path(sys.executable).parent)
        self._environment = aws.environment() | {
            "PATH": os.pathsep.join((own_bin, os.environ["PATH"])),
            "CDK_DISABLE_VERSION_CHECK": "1",
            "CDK_DISABLE_CLI_TELEMETRY": "true",
        }

    def synth(self, *options: str) -> str:
        """Make the templates and assets that all later commands use; they replace those of an earlier call."""
        return self._run("synth", "--quiet", "--output", str(self._folder), "-c", f"env={self._env}", *options)

    def bootstrap(self) -> str:
        """Bootstrap the account."""
        return self._run_on_assembly("bootstrap", f"aws://{ACCOUNT}/{REGION}")

    def deploy(self, outputs: Path) -> str:
        """Deploy every stack, and write the outputs to a file."""
        # Directly: moto confuses change sets of the same name. The deployed stacks are the same.
        options = ("--all", "--require-approval", "never", "--method", "direct")
        return self._run_on_assembly("deploy", *options, "--outputs-file", str(outputs))

    def deploy_app(self, app: str, outputs: Path, *options: str) -> str:
        """Deploy another app, such as the delivery roles, and write its outputs to a file."""
        ask = ("--require-approval", "never", "--method", "direct", "--output", f"{self._folder}-other")
        return self._run("deploy", "--app", app, *ask, "--outputs-file", str(outputs), *options)

    def destroy(self) -> str:
        """Delete every stack."""
        return self._run_on_assembly("destroy", "--all", "--force")

    def _run_on_assembly(self, command: str, *arguments: str) -> str:
        return self._run(command, "--app", str(self._folder), *arguments)

    def _run(self, command: str, *arguments: str) -> str:
        cli = ROOT / "node_modules" / "aws-cdk" / "bin" / "cdk"
        if not cli.exists():
            raise BarflowError(f"Cannot run cdk {command}: the CDK CLI is not installed. Run `make setup`.")
        done = subprocess.run(
            ["node", str(cli), command, *arguments],
            cwd=self._checkout,
            env=self._environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            raise BarflowError(f"cdk {command} failed: {done.stdout.strip()[-2000:]}")
        return done.stdout


def is_unchanged(text: str) -> bool:
    """Return whether the CLI's output says that no stack changed."""
    marks = [line for line in text.splitlines() if line.strip().startswith("✅")]
    return bool(marks) and all("(no changes)" in line for line in marks)


def deploy_and_tear_down(env: str, outputs: Path, log: Log) -> None:
    """Run all steps and log each with its seconds.

    Raise BarflowError at the first step that is not as expected, EmulatorError if the emulator does not start.
    """

    def step(name: str, run: Callable[[], str]) -> str:
        started = time.monotonic()
        printed = run()
        log(f"{name:<40} {time.monotonic() - started:6.1f} s")
        return printed

    with tempfile.TemporaryDirectory() as folder, AwsEmulator() as aws:
        cdk = Cdk(aws, env, Path(folder) / "assembly")
        step("synthesize", cdk.synth)
        step("bootstrap the account", cdk.bootstrap)
        step("deploy every stack", lambda: cdk.deploy(outputs))
        again = step("deploy again: no stack changes", lambda: cdk.deploy(outputs))
        if not is_unchanged(again):
            raise BarflowError(f"The second deployment changed a stack: {again[-2000:]}")
        step("tear down: rejected, data is protected", lambda: _fail_to_destroy(cdk.destroy))
        step("synthesize with data deletion allowed", lambda: cdk.synth(*ALLOW_DATA_DELETION))
        step("deploy with data deletion allowed", lambda: cdk.deploy(Path(folder) / "outputs.json"))
        step("tear down", cdk.destroy)
    keys = sum(not key.startswith("Exports") for stack in json.loads(outputs.read_text()).values() for key in stack)
    log(f"{keys} outputs in {outputs}")


def _fail_to_destroy(destroy: Callable[[], str]) -> str:
    """Return the CLI's output. Raise BarflowError if the stacks can be deleted, or for another reason cannot."""
    try:
        destroy()
    except BarflowError as error:
        if "TerminationProtection" in str(error):
            return str(error)
        raise
    raise BarflowError("A stack that holds data was deleted without the context flag allow_data_deletion.")


def main() -> int:
    """Run the steps for the environment of the command line, and return the exit code."""
    parser = argparse.ArgumentParser(prog="make deploy-local", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--env", default="dev", help="environment: dev (default), staging or prod")
    parser.add_argument("--outputs", type=Path, default=Path("cdk-outputs.json"), help="file for the stacks' outputs")
    options = parser.parse_args()
    try:
        deploy_and_tear_down(options.env, options.outputs, lambda line: print(line, file=sys.stderr, flush=True))
    except (BarflowError, EmulatorError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, BarflowError) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
