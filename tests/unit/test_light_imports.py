"""Ingest stays light: it runs every five minutes in a Lambda function, where every import costs time and memory."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"pandas", "numpy", "pyarrow", "pyspark", "psycopg", "boto3", "slack_sdk", "rich", "typer", "fastapi", "cel"}
HEAVY |= {"standardwebhooks", "apprise"}  # only with a webhook, or a service of apprise


def test_the_ingest_path_imports_no_heavy_package() -> None:
    code = f"import barflow.pipeline.ingest, sys; print(*({HEAVY!r} & set(sys.modules)))"
    assert imported(code) == []


def test_the_start_of_the_ingest_function_imports_only_what_a_tick_needs() -> None:
    unused = HEAVY | {"openlineage", "httpx2", "yaml", "oauthlib", "markdown", "dns.resolver"}
    unused |= {"barflow.operations.daily_actions", "barflow.pipeline.lineage_events", "barflow.alerts.people"}
    unused |= {"barflow.alerts.webhook", "barflow.lake.partitions", "barflow.warehouse.connection"}
    code = f"import sys; sys.path.insert(0, 'lambda/ingest'); import handler; print(*({unused!r} & set(sys.modules)))"
    assert imported(code) == []


def test_the_public_api_is_imported_on_first_use() -> None:
    assert imported(f"import barflow, sys; print(*({HEAVY!r} & set(sys.modules)))") == []
    assert "pyarrow" in imported("import barflow, sys; barflow.read; print(*sys.modules)")
    assert imported("from barflow import *; print(callable(read), callable(symbols))") == ["True", "True"]


def imported(code: str) -> list[str]:
    """Return the words that a new process prints."""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return child.stdout.split()


def test_only_a_url_of_apprise_loads_it_and_a_reference_not_before_a_message_is_sent() -> None:
    code = (
        "import sys; from barflow.alerts.channels import open_channels; from barflow.settings import load_settings; "
        "open_channels(load_settings(apprise_url='team=secretsmanager:barflow/dev/apprise#team')); "
        "print('apprise' in sys.modules); open_channels(load_settings(apprise_url='json://127.0.0.1:1/')); "
        "print('apprise' in sys.modules)"
    )
    assert imported(code) == ["False", "True"]


def test_only_a_rule_with_a_condition_loads_cel() -> None:
    code = (
        "import sys; from barflow.alerts.expressions import _cel, condition; "
        "from barflow.alerts.rules_file import load_rules; load_rules(); print(_cel.cache_info().currsize); "
        "condition('close > 1.0'); print(_cel.cache_info().currsize); "
        f"print(*({HEAVY!r} & set(sys.modules)))"
    )
    assert imported(code) == ["0", "1"], "not even its package's command line"
