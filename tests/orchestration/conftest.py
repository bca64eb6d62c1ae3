"""Which DAGs do the tests look at? Those of each kind of environment, as Airflow reads them, each once."""

from __future__ import annotations

import pytest
from reading import Structure, read_dags


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Structure:
    """The DAGs of a deployment whose ingestion is a function."""
    return read_dags(tmp_path_factory.mktemp("airflow"), {"BARFLOW_ENV": "dev"})


@pytest.fixture(scope="session")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> Structure:
    """Those of one whose host ingests, and that processes hourly."""
    schedule = "40 10-15 * * MON-FRI;45 16 * * 1-5"
    variables = {"BARFLOW_ENV": "prod", "BARFLOW_INGEST_RUNNER": "host", "BARFLOW_PROCESS_SCHEDULE": schedule}
    return read_dags(tmp_path_factory.mktemp("airflow"), variables)


@pytest.fixture(scope="session")
def on_laptop(tmp_path_factory: pytest.TempPathFactory) -> Structure:
    return read_dags(tmp_path_factory.mktemp("airflow"), {"BARFLOW_ENV": "local"})
