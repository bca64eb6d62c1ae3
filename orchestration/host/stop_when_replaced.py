"""Stop the scheduler while a deployment replaces this host, and start it again if the deployment is rolled back.

A deployment first writes the new contract, then creates the new host, and removes the old one when the new one is up.
Without this, two schedulers of different releases would use the same metadata. A new AMI or size of the host changes no
contract: then both hosts run the same release, which Airflow allows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from barflow.errors import BarflowError
from barflow.operations.deployment import read_contract

SCHEDULER = "airflow-scheduler.service"
CONTRACT, STOPPED = "contract.json", "scheduler-stopped"


def main() -> int:
    """Compare the deployed contract with this host's contract. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=Path("/run/barflow"), help="folder with this host's contract")
    folder = parser.parse_args().to
    try:
        deployed = read_contract(os.environ["BARFLOW_ENV"]).model_dump_json()
    except BarflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    replaced, stopped = deployed != (folder / CONTRACT).read_text(), folder / STOPPED
    if replaced and not stopped.exists():
        print("a deployment replaces this host: stopping the scheduler")
        subprocess.run(["systemctl", "stop", SCHEDULER], check=True)
        stopped.touch()
    elif stopped.exists() and not replaced:
        print("the deployment was rolled back: starting the scheduler")
        subprocess.run(["systemctl", "start", SCHEDULER], check=True)
        stopped.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
