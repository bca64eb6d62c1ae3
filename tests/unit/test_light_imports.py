"""Does ingestion stay light? It runs in a Lambda every five minutes, where each import is paid for."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"pandas", "numpy", "pyarrow", "pyspark", "psycopg", "boto3", "slack_sdk", "rich", "typer", "fastapi"}


def test_the_ingest_path_imports_nothing_heavy() -> None:
    code = f"import barflow.pipeline.ingest, sys; print(*({HEAVY!r} & set(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.split() == []
