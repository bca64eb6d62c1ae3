"""Ingest stays light: it runs every five minutes in a Lambda function, where every import costs time and memory."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"pandas", "numpy", "pyarrow", "pyspark", "psycopg", "boto3", "slack_sdk", "rich", "typer", "fastapi"}
HEAVY |= {"standardwebhooks"}  # only with a webhook


def test_the_ingest_path_imports_no_heavy_package() -> None:
    code = f"import barflow.pipeline.ingest, sys; print(*({HEAVY!r} & set(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.split() == []
