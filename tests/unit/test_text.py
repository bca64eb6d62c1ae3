"""Text from outside: planted secrets are removed, control characters are shown, and Slack's markup is escaped."""

from __future__ import annotations

import json
import time
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from barflow.errors import BadInputError
from barflow.pipeline.program import as_known
from barflow.text import counted, redacted, slack_escaped, visible

# Long and unlike any word, so that a part of it in a result is a leak.
PLAIN = st.integers(2**60, 2**160).map(lambda number: f"q9{number:x}Z7")
ANY = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20).map(
    lambda text: f"q9x{text}x7Z"
)
NAMES = st.sampled_from(
    (
        *("password", "PGPASSWORD", "db_password", "Passwd", "apikey", "api_key", "X-Api-Key", "TWELVEDATA_API_KEY"),
        *("AWS_SECRET_ACCESS_KEY", "SecretAccessKey", "aws_session_token", "client_secret", "BARFLOW_WEBHOOK_SECRET"),
        *("private_key", "token", "SlackToken", "DASHBOARD_TOKEN", "pass", "DB_PASS", "pw", "X-Amz-Signature"),
    )
)


def assert_removed(text: str, secret: str) -> None:
    found = redacted(f"Before. {text}")
    assert found.startswith("Before. ")
    for start in range(len(secret) - 5):  # no part of it either
        assert secret[start : start + 6] not in found, found


@given(NAMES, PLAIN, st.sampled_from(["=", ": ", " = ", ":", ": \n  ", "=>", " := "]))
def test_a_named_value_is_removed(name: str, secret: str, sign: str) -> None:
    if sign == " := ":
        sign = ":"
    assert_removed(f"{name}{sign}{secret} follows", secret)
    assert_removed(f"?symbol=AAPL&{name}{sign}{secret}&x=1", secret)
    assert_removed(quote(f"{name}{sign}{secret}", safe=""), secret)
    assert_removed(quote(quote(f"{name}{sign}{secret}", safe=""), safe=""), secret)
    assert_removed(f"<{name}>{secret}</{name}>", secret)
    assert_removed(f"--{name} {secret}", secret)
    assert_removed(f"--{name}={secret}", secret)


@given(NAMES, ANY)
@example("password", "a b")
@example("password", 'a"b\\')
@example("password", "line one\nline two")
def test_a_quoted_value_is_removed(name: str, secret: str) -> None:
    document = json.dumps({"user": "me", name: secret, "symbol": "AAPL"})
    for text in (
        document,
        json.dumps(document),
        json.dumps(json.dumps(document)),
        quote(document),
        repr({name: secret}),
    ):
        inner = json.dumps(secret)[1:-1]
        found = redacted(text)
        for form in (secret, inner, quote(secret, safe="")):
            assert form not in found or len(form) < 3, found
    assert json.loads(redacted(document)) == {"user": "me", name: "…", "symbol": "AAPL"}


@given(NAMES, st.text(st.characters(exclude_characters="'"), min_size=6))
def test_a_value_in_single_quotes_may_hold_spaces_and_lines(name: str, secret: str) -> None:
    secret = f"q9{secret}z7".replace("\\", "/")
    assert secret not in redacted(f"{name}='{secret}' host=db")
    assert secret not in redacted(f"{name} '{secret}")  # cut off


@given(PLAIN)
@pytest.mark.parametrize(
    "text",
    [
        "Authorization: apikey {}",
        "'Authorization': 'Bearer {}'",
        "Authorization: Basic {}",
        "GET /time_series apikey {} failed",
        "sent Bearer {}",
        "authorization%3A%20Bearer%20{}",
        "postgresql://loader:{}@db:5432/barflow",
        "mongodb+srv://{}@cluster.example.net/?x=1",
        "mongodb://user:a/{}@b@db:27017",
        "postgresql%3A%2F%2Floader%3A{}%40db%3A5432",
        "https:\\/\\/user:{}@host",
        "https://hooks.slack.com/services/T0AAAA/B0BBBB/{}",
        "hooks.slack.com%2Fservices%2FT0%2FB0%2F{}",
        "xoxb-123-{}",
        "xoxe.xoxp-1-{}",
        "whsec_{}",
        "eyJ{}.eyJ{}",
        "-----BEGIN RSA PRIVATE KEY-----\n{}\n{}\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\n{}",
        "Cookie: session={}",
        "SecretStr token=SecretStr('{}')",
        "password: >\n    {}",
    ],
)
def test_a_secret_of_a_known_form_is_removed(text: str, secret: str) -> None:
    assert_removed(text.replace("{}", secret), secret)


def test_an_access_key_id_is_removed() -> None:
    assert "AKIAIOSFODNN7EXAMPLE" not in redacted("AKIAIOSFODNN7EXAMPLE may not do that")


@pytest.mark.parametrize(
    "text",
    [
        "Export it: mongodb://USER:PASSWORD@HOST:27017/ or mongodb+srv://USER:PASSWORD@HOST/",
        "TWELVEDATA_API_KEY is not a valid key: set the right one, then run again.",
        "a secret was given as an argument: give a reference, such as secretsmanager:NAME#dsn",
        "BARFLOW_DASHBOARD_TOKEN: must be at least 16 characters",
        "BARFLOW_TWELVEDATA_URL is not an address such as https://api.twelvedata.com",
        "12 API credits were used, with the current limit being 8. Get your API key at https://twelvedata.com/pricing",
        "arn:aws:secretsmanager:us-east-1:123456789012:secret:barflow/dev/slack cannot be read",
        "AAPL|5min|2025-07-02 at 2025-07-02 13:30:00 UTC: s3://lake/bars_5min/symbol=AAPL",
    ],
)
def test_our_own_messages_stay_as_they_are(text: str) -> None:
    assert redacted(text) == text


def test_long_text_takes_little_time() -> None:
    hard = ("password", "://", "password: '", "\\", "a", "%25", "apikey ", "eyJ", "token  ", "-----BEGIN PRIVATE KEY")
    for text in (part * (200_000 // len(part)) for part in hard):
        begun = time.perf_counter()
        redacted(text)
        assert time.perf_counter() - begun < 2, text[:20]


@given(PLAIN)
def test_every_error_is_redacted_before_it_is_cut(secret: str) -> None:
    assert secret not in str(BadInputError(f'{{"password": "{secret}"}}'))
    # The cut is within the DSN: without its @, it would not look like one.
    long = "x" * (300 - len("ValueError: ") - 20) + f" postgresql://user:{secret}{secret}@db"
    assert secret[:8] not in str(as_known(ValueError(long)))


@given(st.text(st.characters()))
def test_visible_text_has_no_control_character(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    shown.encode()  # no half of a surrogate pair
    assert visible(text, keep="\n").replace("\n", "").isprintable()


def test_control_characters_are_shown_as_escapes() -> None:
    assert visible("a\x1b[31mb\x9b\u202ec\u2028d\x00\ud800\n é日") == (r"a\x1b[31mb\x9b\u202ec\u2028d\x00\ud800\n é日")


@given(st.text(st.characters()), st.booleans())
@example("<!channel> <@U1> <https://x.example|bank>", False)
@example("```\nhidden", True)
def test_slack_reads_no_markup_in_a_value(text: str, lines: bool) -> None:
    shown = slack_escaped(text, lines=lines)
    assert not set("<>") & set(shown)
    assert "``" not in shown
    assert not any(line.count("`") % 2 for line in shown.split("\n"))
    assert "&" not in shown.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
    assert lines or "\n" not in shown
    assert shown.replace("\n", "").isprintable()


def test_a_long_value_is_cut_and_its_escapes_stay_whole() -> None:
    assert slack_escaped("<" * 5_000, 10) == "&lt;" * 9 + "…"


def test_one_has_no_plural_and_thousands_have_a_comma() -> None:
    assert [counted(number, "bar") for number in (0, 1, 1200)] == ["0 bars", "1 bar", "1,200 bars"]
