"""The facts in config/aws are what the packages publish, and an account's answers replace them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from config import versions
from config.aws.facts import FOLDER, EmrFacts, RdsFacts
from tools import refresh_aws_facts as tool

REGION = "eu-west-1"


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return clients of an account whose answers the test sets."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    return {name: boto3.client(name, region_name=REGION) for name in ("emr", "rds")}


def answer_emr(client: Any, *pages: list[str]) -> Stubber:
    """Make EMR answer with these pages of instance types."""
    stubber = Stubber(client)
    for number, page in enumerate(pages):
        asked = {"ReleaseLabel": versions.EMR_RELEASE} | ({"Marker": str(number)} if number else {})
        more = {"Marker": str(number + 1)} if number + 1 < len(pages) else {}
        answer = {"SupportedInstanceTypes": [{"Type": item} for item in page]} | more
        stubber.add_response("list_supported_instance_types", answer, asked)
    stubber.activate()
    return stubber


def answer_rds(client: Any, parameters: list[dict[str, str]]) -> Stubber:
    """Make RDS answer with two versions, one class and these parameters for each family."""
    stubber = Stubber(client)
    listed = [
        {"EngineVersion": version, "Status": status}
        for version, status in (("18.7", "available"), ("17.4", "deprecated"), ("16.1", "available"))
    ]
    stubber.add_response("describe_db_engine_versions", {"DBEngineVersions": listed})
    classes = [{"DBInstanceClass": name} for name in ("db.t4g.micro", "db.t3.micro")]
    stubber.add_response("describe_orderable_db_instance_options", {"OrderableDBInstanceOptions": classes})
    for major in versions.POSTGRESQL_MAJORS:
        stubber.add_response(
            "describe_engine_default_parameters",
            {"EngineDefaults": {"Parameters": parameters}},
            {"DBParameterGroupFamily": f"postgres{major}"},
        )
    stubber.activate()
    return stubber


def parameters() -> list[dict[str, str]]:
    """Return RDS's answer for every parameter that the stacks set."""
    held = tool.read(FOLDER)["rds"]["parameters"]["postgres18"]
    return [{"ParameterName": name, "DataType": "string", "AllowedValues": "0,1"} for name in held]


def test_the_committed_facts_are_what_the_packages_publish(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["--check"]) == 0
    assert capsys.readouterr().out == "the facts are current\n"


def test_a_changed_file_is_found_and_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "aws", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    path = folder / "emr.json"
    path.write_text(path.read_text().replace('"m7g": "xlarge', '"m7g": "large xlarge').replace("2026-", "2020-"))
    assert tool.main(["--check", "--folder", str(folder)]) == 1
    assert capsys.readouterr().out == "emr.json would change\n"
    assert tool.main(["--folder", str(folder)]) == 0
    assert capsys.readouterr().out == "emr.json changed\n"
    written = EmrFacts.model_validate_json(path.read_text())
    assert not written.offers("m7g.large")
    assert written.as_of.year > 2020
    assert (folder / "rds.json").read_text() == (FOLDER / "rds.json").read_text()


def test_an_accounts_answers_replace_the_facts(clients: dict[str, Any]) -> None:
    emr = answer_emr(clients["emr"], ["m6g.xlarge"], ["m6g.2xlarge", "c5.xlarge"])
    rds = answer_rds(clients["rds"], [*parameters(), {"ParameterName": "other", "DataType": "string"}])
    found = tool.from_account(tool.read(FOLDER), clients.__getitem__, REGION)
    emr.assert_no_pending_responses()
    rds.assert_no_pending_responses()
    types = EmrFacts(**found["emr"])
    assert list(types.instance_types()) == ["c5.xlarge", "m6g.xlarge", "m6g.2xlarge"]
    database = RdsFacts(**found["rds"])
    assert database.engine_versions == ("17", "17.4", "18", "18.7")
    assert database.deprecated_versions == ("17.4",)
    assert database.classes == {"db.t4g": ("micro",)}
    assert set(database.parameters["postgres18"]) == {item["ParameterName"] for item in parameters()}
    assert not database.parameters["postgres18"]["log_connections"].accepts("2")
    assert (types.read_in, types.note, database.read_in) == (REGION, "", REGION)


def test_facts_of_an_account_stay_when_only_the_packages_are_read(clients: dict[str, Any]) -> None:
    answer_emr(clients["emr"], ["m6g.xlarge"])
    answer_rds(clients["rds"], parameters())
    found = tool.from_account(tool.read(FOLDER), clients.__getitem__, REGION)
    assert tool.refreshed(found) == found


def test_a_parameter_that_the_family_lacks_stops_the_refresh(clients: dict[str, Any]) -> None:
    answer_emr(clients["emr"], ["m6g.xlarge"])
    answer_rds(clients["rds"], parameters()[1:])
    with pytest.raises(SystemExit, match=r"postgres17 has no parameter log_connections; nothing was written"):
        tool.from_account(tool.read(FOLDER), clients.__getitem__, REGION)


def test_an_account_that_denies_a_call_changes_nothing(
    tmp_path: Path, clients: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "aws", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    stubber = Stubber(clients["emr"])
    stubber.add_client_error("list_supported_instance_types", "AccessDeniedException", "not allowed")
    stubber.activate()
    monkeypatch.setattr(tool, "_session", lambda profile, region: (clients.__getitem__, REGION))
    assert tool.main(["--account", "--folder", str(folder)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: the account did not answer: ")
    assert "Nothing was written. " not in message
    assert message.endswith("Nothing was written.\n")
    assert tool.read(folder) == tool.read(FOLDER)
