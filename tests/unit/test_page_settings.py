"""Settings of the page behind a proxy: what is accepted, and how a wrong value is rejected."""

from __future__ import annotations

import pytest

from barflow.errors import BadInputError
from barflow.settings import load_settings


def test_a_public_url_is_an_origin_and_proxies_are_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARFLOW_PAGE_URL", "https://Bars.example.com/")
    monkeypatch.setenv("BARFLOW_PAGE_PROXIES", "10.20.0.0/26, 10.20.0.77,")
    settings = load_settings()
    assert settings.page_url == "https://bars.example.com"
    assert settings.page_proxies == ("10.20.0.0/26", "10.20.0.77/32")


def test_empty_values_are_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARFLOW_PAGE_URL", "")
    monkeypatch.setenv("BARFLOW_PAGE_PROXIES", "")
    assert (load_settings().page_url, load_settings().page_proxies) == (None, ())


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("BARFLOW_PAGE_URL", "bars.example.com", "must be http:// or https:// and a host name"),
        ("BARFLOW_PAGE_URL", "https://bars.example.com/page", "must be http:// or https:// and a host name"),
        ("BARFLOW_PAGE_URL", "https://user@bars.example.com", "must be http:// or https:// and a host name"),
        ("BARFLOW_PAGE_PROXIES", "balancer", "must be addresses or networks such as"),
        ("BARFLOW_PAGE_PROXIES", "10.20.0.1/26", "must be addresses or networks such as"),
        ("BARFLOW_PAGE_PROXIES", "0.0.0.0/0", "must be networks of /8 or narrower"),
    ],
)
def test_a_wrong_value_is_rejected(monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadInputError, match=f"settings are wrong: {name} {problem}"):
        load_settings()
