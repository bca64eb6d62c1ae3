"""`barflow alerts test-channel` sends one marked message, outside the outbox, on which no bot trades."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from apprise_receivers import TOKEN, JsonReceiver
from typer.testing import CliRunner
from webhook_receivers import LEAK, SECRET, TlsReceiver, example

from barflow.alerts.message import Message
from barflow.cli.alerts import alerts_app
from barflow.errors import BadInputError, BarflowError
from emulators.slack.server import TOKEN as SLACK_TOKEN
from emulators.slack.server import Fault, SlackEmulator

Try = Callable[..., Any]


@pytest.fixture
def try_channel(monkeypatch: pytest.MonkeyPatch) -> Try:
    """No store is set up: the command needs none."""

    def run(*given: str, **settings: object) -> Any:
        for name, value in settings.items():
            monkeypatch.setenv(f"BARFLOW_{name.upper()}", str(value))
        return CliRunner().invoke(alerts_app, ["test-channel", *given])

    return run


def test_each_channel_of_a_kind_gets_one_test_message(try_channel: Try, tmp_path: Path) -> None:
    with JsonReceiver(tmp_path) as receiver:
        urls = f"team={receiver.url} desk={receiver.url}"
        done = try_channel("apprise", apprise_url=urls)
        assert done.exit_code == 0, done.exception
        assert done.output.count(" to apprise-team (json)") == done.output.count(" to apprise-desk (json)") == 1
        assert [item["title"] for item in receiver.taken] == ["* info: test"] * 2
        assert receiver.taken[0]["message"].startswith("Test message of the environment local. No bar fired it.")
        assert try_channel("apprise-desk").exit_code == 0
        assert receiver.requests == 3
        assert TOKEN not in done.output
        receiver.fault = 401
        refused = try_channel("apprise-team", "--json")
        assert json.loads(refused.output)["failed"] == {"apprise-team": "HTTP 401"}
        assert receiver.requests == 4, "nothing is tried again"
    assert isinstance(refused.exception, BarflowError)
    reason = "the test message was not accepted: HTTP 401 from apprise-team. It is not sent again."
    assert reason in str(refused.exception)


def test_slack_refuses_with_its_code(try_channel: Try, slack_server: SlackEmulator) -> None:
    settings = {"slack_token": SLACK_TOKEN, "slack_channel": "#alerts", "slack_url": slack_server.url}
    assert "(#alerts)" in try_channel("slack", **settings).output
    [posted] = slack_server.posts
    assert "Test message of the environment local" in posted["text"]
    slack_server.fault = Fault("channel_not_found")
    refused = try_channel("slack").exception
    assert "channel_not_found from slack" in str(refused)
    assert "\n" not in str(refused)
    assert SLACK_TOKEN not in str(refused)


def test_a_webhook_gets_a_signed_message_of_the_kind_test(try_channel: Try, tmp_path: Path) -> None:
    with TlsReceiver(tmp_path, host="localhost") as receiver:
        settings = {"webhook_url": receiver.url, "webhook_secret": SECRET, "webhook_allow_private": "true"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(receiver.certificate))
            done = try_channel("webhook", **settings)
            assert done.exit_code == 0, done.exception
            receiver.fault = 410
            assert "HTTP 410 from webhook-" in str(try_channel("webhook").exception)
    [acted] = receiver.acted
    message = Message.model_validate(acted)
    assert (message.kind, message.rule, message.symbol, message.severity) == ("test", "test", "*", "info")
    assert message.price is None
    assert LEAK.decode() not in done.output


def test_the_example_receiver_does_not_act_on_a_test_message(capsys: pytest.CaptureFixture[str]) -> None:
    specification = importlib.util.spec_from_file_location("an_example", example.__file__)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    module.act({"kind": "test", "text": "Test message", "bar_start": "2025-07-07T13:30:00Z", "severity": "info"})
    assert capsys.readouterr().out == "Test message\n"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("slack", "slack is not set up. The channels that are set up: apprise-team."),
        ("apprise-other", "apprise-other is not set up."),
        ("sse", "sse is the outbox itself"),
    ],
)
def test_a_channel_that_is_not_set_up_is_bad_input(try_channel: Try, name: str, error: str) -> None:
    raised = try_channel(name, apprise_url="team=secretsmanager:barflow/dev/apprise#team").exception
    assert isinstance(raised, BadInputError)
    assert error in str(raised)
