"""Logins: wrong tokens are limited, nobody is locked out for good, and a session that has ended never comes back."""

from __future__ import annotations

import pytest

from barflow.errors import BadInputError
from dashboard import logins
from dashboard.logins import CLIENT_ATTEMPTS, CLIENT_SECONDS, TOTAL_ATTEMPTS, Logins, TooManyAttemptsError
from dashboard.security import checked_token

TOKEN = "token-of-the-login-tests"


class Clock:
    """Seconds that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def page(clock: Clock) -> Logins:
    return Logins(TOKEN, clock=clock)


def guess(page: Logins, count: int, client: str = "192.0.2.1", browser: str = "") -> int:
    """Try wrong tokens, and return how many were checked."""
    checked = 0
    for _ in range(count):
        try:
            assert page.sign_in("wrong", client, browser) is None
        except TooManyAttemptsError:
            continue
        checked += 1
    return checked


def test_a_client_may_try_ten_wrong_tokens_and_then_one_every_six_seconds(page: Logins, clock: Clock) -> None:
    assert guess(page, 1000) == CLIENT_ATTEMPTS
    with pytest.raises(TooManyAttemptsError) as rejected:
        page.sign_in(TOKEN, "192.0.2.1")
    assert rejected.value.seconds == CLIENT_SECONDS
    assert page.sign_in(TOKEN, "192.0.2.2"), "another client is not affected"
    clock.now += CLIENT_SECONDS
    assert page.sign_in(TOKEN, "192.0.2.1"), "rejected attempts do not make the wait longer"


def test_many_clients_together_are_limited_and_a_known_browser_still_gets_in(page: Logins, clock: Clock) -> None:
    browser = page.new_browser()
    assert sum(guess(page, 20, f"192.0.2.{number}") for number in range(200)) == TOTAL_ATTEMPTS
    with pytest.raises(TooManyAttemptsError):
        page.sign_in(TOKEN, "198.51.100.1")
    assert page.sign_in(TOKEN, "192.0.2.1", browser)
    with pytest.raises(TooManyAttemptsError):
        page.sign_in(TOKEN, "198.51.100.1", browser.replace(browser[:1], "g", 1))
    clock.now += 1
    assert page.sign_in(TOKEN, "198.51.100.1")


def test_a_known_browser_has_the_same_limit_of_its_own(page: Logins) -> None:
    assert guess(page, 100, browser=page.new_browser()) == CLIENT_ATTEMPTS
    assert guess(page, 1) == 1
    assert guess(Logins("another-token-of-16"), 100, browser=page.new_browser()) == CLIENT_ATTEMPTS


def test_right_tokens_are_not_counted(page: Logins) -> None:
    assert all(page.sign_in(TOKEN, "192.0.2.1") for _ in range(50))


def test_the_counts_need_bounded_memory(page: Logins, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "MAX_CLIENTS", 5)
    for number in range(100):
        guess(page, 1, f"2001:db8:{number}::1")
        clock.now += 1
    assert len(page._by_client._used_up_until) == 5


def test_an_ipv6_client_has_one_count_for_all_its_addresses(page: Logins) -> None:
    assert sum(guess(page, 1, f"2001:db8::{number:x}") for number in range(100)) == CLIENT_ATTEMPTS
    assert guess(page, 100, "::ffff:192.0.2.1") == CLIENT_ATTEMPTS
    assert guess(page, 1, "192.0.2.1") == 0


@pytest.mark.parametrize("token", ["", "\ud800", "\x00", TOKEN + " ", TOKEN[:-1], TOKEN.upper(), "ü" * 500])
def test_another_token_is_wrong(page: Logins, token: str) -> None:
    assert page.sign_in(token, "192.0.2.1") is None


def test_a_session_ends_on_sign_out_wherever_its_cookie_is(clock: Clock) -> None:
    ended: list[str] = []
    page = Logins(TOKEN, ended.append, clock)
    cookie, other = page.sign_in(TOKEN, ""), page.sign_in(TOKEN, "")
    assert cookie
    assert other
    session = page.session(cookie)
    page.sign_out(cookie)
    page.sign_out(cookie)
    assert (page.is_valid(cookie), page.is_valid(other), ended) == (False, True, [session])
    assert not Logins(TOKEN).is_valid(other), "another server does not know it"


def test_a_session_expires_and_cannot_be_invented(page: Logins, clock: Clock) -> None:
    cookie = page.sign_in(TOKEN, "")
    assert cookie
    clock.now += 12 * 3600 - 1
    assert page.is_valid(cookie)
    assert page.seconds_left(page.session(cookie) or "") == 1
    assert not page.is_valid(cookie[:-1])
    assert not page.is_valid("")
    clock.now += 1
    assert not page.is_valid(cookie)
    assert not page._expires


def test_the_oldest_session_ends_where_there_are_too_many(page: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "MAX_SESSIONS", 2)
    cookies = [page.sign_in(TOKEN, "") or "" for _ in range(3)]
    assert [page.is_valid(cookie) for cookie in cookies] == [False, True, True]


@pytest.mark.parametrize(
    ("token", "host", "url", "proxies", "problem"),
    [
        (None, "0.0.0.0", None, (), "no BARFLOW_DASHBOARD_TOKEN is set"),
        (None, "127.0.0.1", "http://bars.example.com", (), "no BARFLOW_DASHBOARD_TOKEN is set"),
        ("short", "127.0.0.1", None, (), "shorter than 16"),
        (TOKEN, "0.0.0.0", "https://bars.example.com", (), "Set BARFLOW_PAGE_PROXIES"),
    ],
)
def test_the_page_is_not_served_with_unsafe_settings(
    token: str | None, host: str, url: str | None, proxies: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(BadInputError, match=problem) as rejected:
        checked_token(token, host, url, proxies)
    assert "Nothing was served" in str(rejected.value)
