"""Fixtures of the DAG tests: the DAGs of each kind of environment, read once."""

from __future__ import annotations

import pytest
from reading import Structure, read_dags

# A deployment whose function ingests, one whose host ingests and that processes hourly, and a laptop.
ENVIRONMENTS = {
    "deployed": {"BARFLOW_ENV": "dev"},
    "on_host": {
        "BARFLOW_ENV": "prod",
        "BARFLOW_INGEST_RUNNER": "host",
        "BARFLOW_PROCESS_SCHEDULE": "40 10-15 * * MON-FRI;45 16 * * 1-5",
        "BARFLOW_QUALITY_SCHEDULE": "0 20 * * FRI",
    },
    "on_laptop": {"BARFLOW_ENV": "local"},
    "with_lineage": {"BARFLOW_ENV": "dev", "BARFLOW_OPENLINEAGE_URL": "https://lineage.example.com/"},
    "host_with_lineage": {
        "BARFLOW_ENV": "prod",
        "BARFLOW_INGEST_RUNNER": "host",
        "BARFLOW_OPENLINEAGE_URL": "https://lineage.example.com/",
    },
    "laptop_with_lineage": {"BARFLOW_ENV": "local", "BARFLOW_OPENLINEAGE_URL": "/tmp/lineage.jsonl"},
}


@pytest.fixture(scope="session")
def structures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Structure]:
    return read_dags(tmp_path_factory.mktemp("airflow"), ENVIRONMENTS)


@pytest.fixture
def deployed(structures: dict[str, Structure]) -> Structure:
    return structures["deployed"]


@pytest.fixture
def on_host(structures: dict[str, Structure]) -> Structure:
    return structures["on_host"]


@pytest.fixture
def on_laptop(structures: dict[str, Structure]) -> Structure:
    return structures["on_laptop"]


@pytest.fixture(params=ENVIRONMENTS)
def structure(structures: dict[str, Structure], request: pytest.FixtureRequest) -> Structure:
    return structures[request.param]
