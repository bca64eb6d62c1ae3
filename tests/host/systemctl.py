"""Fake `systemctl`: start the commands of the installed units, as their ExecStart says.

Units run with the variables of their EnvironmentFile and the address of the AWS emulator only. The paths of a unit are
below BARFLOW_ROOT. Sandboxes, users and restarts are not simulated. The processes are listed in ../pids.
"""

from __future__ import annotations

import configparser
import os
import pwd
import shlex
import string
import subprocess
import sys
from pathlib import Path

ROOT = Path(os.environ["BARFLOW_ROOT"])
UNITS = ROOT / "etc/systemd/system"
PASSED = ("PATH", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "PGHOST")


def commands(unit: str) -> tuple[list[str], dict[str, str]]:
    """Return the commands of a unit and their environment."""
    lines = (UNITS / unit).read_text().splitlines()
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string("\n".join(line for line in lines if not line.startswith("ExecStart=")))
    file = parser["Service"]["EnvironmentFile"]
    values = dict(word.split("=", 1) for word in shlex.split((ROOT / file.lstrip("/")).read_text()))
    environment = {name: os.environ[name] for name in PASSED if name in os.environ} | values
    found = [line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart=")]
    return [string.Template(command).substitute(environment) for command in found], environment


def below_root(command: str) -> list[str]:
    """Return the words of a command, with its paths below the root."""
    words = [f"{ROOT}{word}" if word.startswith("/opt/barflow/") else word for word in shlex.split(command)]
    if command.endswith("write_settings.py"):
        home, user = f"{ROOT}/var/lib/barflow/airflow", pwd.getpwuid(os.getuid()).pw_name
        words += ["--to", f"{ROOT}/run/barflow", "--airflow-home", home, "--airflow-user", user]
    return words


def start(unit: str) -> None:
    """Run a oneshot unit to its end, or start a service."""
    found, environment = commands(unit)
    log = ROOT.parent / f"{unit}.log"
    with log.open("ab") as output:
        if "Type=oneshot" in (UNITS / unit).read_text():
            for command in found:
                subprocess.run(below_root(command), env=environment, stdout=output, stderr=output, check=True)
            return
        (command,) = found
        running = subprocess.Popen(
            below_root(command), env=environment, stdout=output, stderr=output, start_new_session=True, cwd="/"
        )
    with (ROOT.parent / "pids").open("a") as pids:
        pids.write(f"{unit} {running.pid}\n")


def main(verb: str, *arguments: str) -> None:
    """Handle `restart UNIT` and `enable UNIT…`."""
    units = [name for name in arguments if name.startswith(("airflow-", "barflow-")) and name.endswith(".service")]
    if verb == "restart":
        (ROOT / "run/barflow").mkdir(parents=True, exist_ok=True)
        start(*units)
    elif verb == "enable":
        # In the order of their After=: first the migration, then the services. The settings have run before.
        for unit in sorted(set(units) - {"barflow-settings.service"}, key=lambda name: "migrate" not in name):
            start(unit)


if __name__ == "__main__":
    main(*sys.argv[1:])
