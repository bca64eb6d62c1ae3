"""Children get this process's environment without the variables of other installations, and Spark's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from barflow.pipeline import children
from barflow.pipeline.environment import foreign_variables, own_environment
from barflow.pipeline.stores import Stores
from barflow.settings import load_settings

KEPT = ("PATH", "HOME", "AWS_PROFILE", "BARFLOW_ENV", "SPARK_LOCAL_DIRS", "PGPASSWORD", "PYTHONIOENCODING", "PGPORT")
LEFT_OUT = ("SPARK_HOME", "HADOOP_CONF_DIR", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "_JAVA_OPTIONS", "PYTHONSTARTUP")


def test_only_variables_of_other_installations_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KEPT, *LEFT_OUT):
        monkeypatch.setenv(name, "given")
    assert set(KEPT) <= own_environment().keys()
    assert set(LEFT_OUT) <= set(foreign_variables())
    assert own_environment().keys() | set(foreign_variables()) == os.environ.keys()


def test_a_spark_program_gets_java_and_a_master_also_on_the_users_own_services(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, str] = {}

    def record(command: Any, environment: Mapping[str, str], *_: object) -> dict[str, Any]:
        given.update(environment)
        return {}

    monkeypatch.setattr(children, "run_child", record)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "--master yarn pyspark-shell")
    children.run_script(Stores(load_settings()), "spark/bars_to_parquet.py", print)
    assert (Path(given["JAVA_HOME"]) / "bin" / "java").exists()
    assert given["PYSPARK_SUBMIT_ARGS"] == "--master local[*] pyspark-shell"
    assert given["PYSPARK_PYTHON"] == sys.executable
