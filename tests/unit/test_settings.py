"""Settings come from shells, env files and secret stores: they are cleaned, or rejected by name without their value."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barflow.errors import BadInputError
from barflow.settings import Settings, load_settings, variable_of
from barflow.text import clean

TEXTS = {
    "BARFLOW_LAKE_URI": ("s3://bucket/lake", "lake_uri"),
    "BARFLOW_MONGODB_DATABASE": ("bars", "mongodb_database"),
    "BARFLOW_ENV": ("staging", "env"),
    "BARFLOW_TWELVEDATA_URL": ("https://api.example", "twelvedata_url"),
    "BARFLOW_SLACK_CHANNEL": ("#alerts", "slack_channel"),
    "BARFLOW_ALERTS_FILE": ("/etc/alerts.toml", "alerts_file"),
    "BARFLOW_INSTRUMENTS_FILE": ("/etc/instruments.toml", "instruments_file"),
    "BARFLOW_MONGODB_URI": ("mongodb://host/", "mongodb_uri"),
    "BARFLOW_WAREHOUSE_DSN": ("postgresql://host/db", "warehouse_dsn"),
    "TWELVEDATA_API_KEY": ("0123abcd", "twelvedata_api_key"),
}


def text_of(settings: Settings, name: str) -> str:
    found = getattr(settings, name)
    return str(found.get_secret_value() if hasattr(found, "get_secret_value") else found)


@pytest.mark.parametrize("variable", TEXTS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "  ", "\t"])
def test_white_space_around_a_text_is_removed(variable: str, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value, name = TEXTS[variable]
    monkeypatch.setenv(variable, f" {value}{end}")
    assert text_of(load_settings(), name) == value


@pytest.mark.parametrize("variable", TEXTS)
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("hid\nden", "only visible characters; character 4 is U+000A"),
        ("hid\u200bden", "character 4 is U+200B"),
        ("\ufeffhidden", "character 1 is U+FEFF"),
        ("hid\udce9den", "character 4 is U+DCE9"),
        ('"hidden"', "must be without the quotes around it"),
        ("'hidden'", "must be without the quotes around it"),
    ],
)
def test_a_text_with_invisible_characters_or_quotes_is_rejected_by_name(
    variable: str, wrong: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, wrong)
    with pytest.raises(BadInputError) as raised:
        load_settings()
    assert f"settings are wrong: {variable} must" in str(raised.value)
    assert reason in str(raised.value)
    assert "hid" not in str(raised.value)


def test_a_home_folder_is_expanded_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/analyst")
    monkeypatch.setenv("BARFLOW_LAKE_URI", "~/lake")
    monkeypatch.setenv("BARFLOW_ALERTS_FILE", "~/alerts.toml")
    settings = load_settings()
    assert (settings.lake_uri, settings.alerts_file) == ("/home/analyst/lake", Path("/home/analyst/alerts.toml"))
    monkeypatch.setenv("BARFLOW_LAKE_URI", "~nobody-has-this-name/lake")
    with pytest.raises(BadInputError, match="BARFLOW_LAKE_URI must be a path; the home folder"):
        load_settings()


@pytest.mark.parametrize("name", ["my bars", "a.b", "a/b", "a\\b", "a$b", "b" * 64, "ü" * 32])
def test_a_database_name_that_mongodb_refuses_is_rejected(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARFLOW_MONGODB_DATABASE", name)
    with pytest.raises(BadInputError, match="BARFLOW_MONGODB_DATABASE must be a database name: 1 to 63 bytes"):
        load_settings()


@pytest.mark.parametrize(
    "uri", ["s3:/bucket/lake", "s3:bucket", "s3:///lake", "s3://", "gs://bucket/lake", "s3://KEY:hid@lake/x"]
)
def test_a_lake_that_is_no_folder_and_not_on_s3_is_rejected(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARFLOW_LAKE_URI", uri)
    with pytest.raises(BadInputError, match="BARFLOW_LAKE_URI must be a folder or s3://bucket/prefix") as raised:
        load_settings()
    assert "hid" not in str(raised.value)


@pytest.mark.parametrize(
    ("given_url", "found"),
    [
        ("https://lineage.example.com", "https://lineage.example.com/"),
        ("https://lineage.example.com/openlineage/", "https://lineage.example.com/openlineage/"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000/"),
        ("file:lineage.jsonl", str(Path.cwd() / "lineage.jsonl")),
        ("file:///var/lineage.jsonl", "/var/lineage.jsonl"),
        ("/var/lineage.jsonl", "/var/lineage.jsonl"),
        ("~/lineage.jsonl", str(Path.home() / "lineage.jsonl")),
        ("", "None"),
    ],
)
def test_the_lineage_goes_to_a_backend_or_to_a_file(
    given_url: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BARFLOW_OPENLINEAGE_URL", given_url)
    assert str(load_settings().openlineage_url) == found


@pytest.mark.parametrize(
    "wrong",
    [
        "http://lineage.example.com", "https://user:hidden@lineage.example.com", "https://lineage.example.com?key=hidden",
        "https://", "s3://bucket/lineage", "kafka://host", "file://host/path",
        "https://[::1", "https://host:port", "~nobody-here/lineage",
    ],
)  # fmt: skip
def test_another_place_for_the_lineage_is_rejected_without_its_text(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BARFLOW_OPENLINEAGE_URL", wrong)
    with pytest.raises(BadInputError, match="BARFLOW_OPENLINEAGE_URL must be ") as raised:
        load_settings()
    assert "hidden" not in str(raised.value)


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        if name != "symbols":
            monkeypatch.setenv(variable_of(name), " ")
    assert load_settings() == Settings(credits_per_day=None)
    monkeypatch.setenv("BARFLOW_SYMBOLS", "")
    with pytest.raises(BadInputError, match="no symbols given"):
        load_settings()


def test_a_wrong_number_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARFLOW_BATCH_SIZE", "300")
    monkeypatch.setenv("BARFLOW_LEASE_SECONDS", "soon")
    with pytest.raises(BadInputError, match="BARFLOW_BATCH_SIZE must be less than or equal to 120; BARFLOW_LEASE_SEC"):
        load_settings()


@given(st.dictionaries(st.sampled_from([*Settings.model_fields]), st.text(max_size=20)))
def test_any_text_is_a_setting_or_is_rejected(given_texts: dict[str, str]) -> None:
    with contextlib.suppress(BadInputError):
        check_is_clean(load_settings(**given_texts))


def check_is_clean(settings: Settings) -> None:
    assert settings.symbols
    for name in ("env", "mongodb_database", "twelvedata_url", "slack_url"):
        assert clean(getattr(settings, name)) == getattr(settings, name) != ""


@pytest.mark.parametrize(
    "variable", ["BARFLOW_TICK_MINUTES", "BARFLOW_VENDOR_DAY_BPS", "BARFLOW_VENDOR_DAY_VOLUME_PCT"]
)
def test_a_number_of_zero_or_none_is_rejected_by_name(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("0", "-1", "many"):
        monkeypatch.setenv(variable, wrong)
        with pytest.raises(BadInputError, match=f"settings are wrong: {variable} must be"):
            load_settings()
