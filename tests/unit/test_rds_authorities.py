"""The vendored certificates of RDS: their hash, their dates, and the tool that refreshes them."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from barflow.warehouse.authorities import authorities
from config import environments
from emulators.aws.rds import Authority
from tools import refresh_rds_authorities as tool

YEAR = timedelta(days=365)


def test_the_bundle_is_the_file_that_the_facts_describe() -> None:
    facts = json.loads(tool.FACTS.read_text())
    assert facts["sha256"] == hashlib.sha256(tool.BUNDLE.read_bytes()).hexdigest()
    assert facts["source"]
    assert datetime.fromisoformat(facts["as_of"])


def test_no_certificate_of_the_bundle_expires_within_a_year() -> None:
    soon = [item.name for item in authorities() if item.valid_until < datetime.now(UTC) + YEAR]
    assert soon == [], "run tools/refresh_rds_authorities.py"


def test_the_bundle_has_only_authorities_of_rds_and_both_readers_agree() -> None:
    read = {item.name: item.valid_until for item in authorities()}
    certificates = tool.authorities(tool.BUNDLE.read_bytes(), datetime.now(UTC))
    assert read == {name: item.not_valid_after_utc for name, item in certificates.items()}
    assert len(tool.PEM.findall(tool.BUNDLE.read_bytes())) == len(read), "nothing else is in the file"
    for item in certificates.values():
        assert item.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_it_covers_the_regions_of_the_environments() -> None:
    regions = {make().region for make in environments.ENVIRONMENTS.values()} - {None} | {"us-east-1"}
    for region in regions:
        assert [item for item in authorities() if item.name.startswith(f"Amazon RDS {region} ")]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the tool write to a folder of the test."""
    monkeypatch.setattr(tool, "BUNDLE", tmp_path / "bundle.pem")
    monkeypatch.setattr(tool, "FACTS", tmp_path / "facts.json")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["refresh_rds_authorities.py", *arguments])
    return tool.main()


def test_the_tool_keeps_the_valid_authorities_and_says_what_changed(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"Amazon RDS eu-test-1 Root CA {kind} G1" for kind in ("RSA2048", "ECC384")]
    foreign = (Authority("Amazon RDS Preview us-east-2 Root CA RSA2048 G1"), Authority("somebody else"))
    given = [Authority(name).certificate for name in names] + [item.certificate for item in foreign]
    (files / "given.pem").write_bytes(b"".join(given))
    assert run(monkeypatch, "--file", str(files / "given.pem"), "--source", "a test") == 0
    kept = tool.PEM.findall(tool.BUNDLE.read_bytes())
    assert kept == [given[1].strip(), given[0].strip()], "sorted by name"
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"+ {names[1]}", f"+ {names[0]}"]
    facts = json.loads(tool.FACTS.read_text())
    assert facts["source"] == "a test"
    (files / "given.pem").write_bytes(given[0])
    assert run(monkeypatch, "--file", str(files / "given.pem")) == 0
    assert capsys.readouterr().out.startswith(f"- {names[1]},")
    months = timedelta(days=90)
    assert tool.authorities(given[0], datetime.now(UTC) + months) == {}, "expired by then"


@pytest.mark.parametrize("text", [b"", b"<html>503</html>", Authority("somebody else").certificate])
def test_the_tool_changes_nothing_for_a_file_without_authorities_of_rds(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: bytes
) -> None:
    (files / "given.pem").write_bytes(text)
    assert run(monkeypatch, "--file", str(files / "given.pem")) == 2
    assert "Nothing was changed." in capsys.readouterr().err
    assert not tool.BUNDLE.exists()


def test_the_tool_rejects_two_certificates_of_one_name() -> None:
    name = "Amazon RDS eu-test-1 Root CA RSA2048 G1"
    both = Authority(name).certificate + Authority(name).certificate
    with pytest.raises(ValueError, match="two certificates are named"):
        tool.authorities(both, datetime.now(UTC))
