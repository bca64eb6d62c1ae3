"""Services of apprise get alerts as people read them, end in time, and show no URL when they fail."""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from apprise_receivers import TOKEN, JsonReceiver, channel
from pydantic import SecretStr
from test_notify import message
from webhook_receivers import DRIP, DROP, LEAK

from barflow.alerts import people
from barflow.alerts.channels import ChannelDownError, kind_of, open_channels
from barflow.alerts.people import AppriseChannel
from barflow.errors import BadInputError, UnavailableError
from barflow.settings import Settings, load_settings


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[JsonReceiver]:
    with JsonReceiver(tmp_path) as running:
        yield running


def down(sender: AppriseChannel) -> ChannelDownError:
    with pytest.raises(ChannelDownError) as raised:
        [*sender.send([message()])]
    return raised.value


def test_an_alert_is_a_title_and_a_sentence_and_a_digest_is_one_message(receiver: JsonReceiver) -> None:
    sender, sent = receiver.channel(), [message("TSLA"), message("BRK.B")]
    assert [*sender.send(sent)] == [{item.id: None} for item in sent]
    assert [item["title"] for item in receiver.taken] == ["TSLA critical: gap_5pct", "BRK.B critical: gap_5pct"]
    assert receiver.taken[0]["message"] == f"{sent[0].text} · 2025-07-07 09:30 New York"
    assert receiver.taken[0]["type"] == "failure", "critical"
    assert receiver.acted_ids() == [item.id for item in sent]
    assert [*sender.send_digest(sent)] == [{item.id: None for item in sent}]
    digest = receiver.taken[2]
    assert digest["title"] == "2 alerts at once"
    assert digest["message"].splitlines()[::3] == ["gap_5pct 2", "barflow alerts list --limit 2 shows all of them"]
    sender.post(":bell: *a mute* of `gap_5pct` &amp; more")
    assert receiver.taken[3]["message"] == "a mute of gap_5pct & more", "without Slack's markup"


def test_other_services_get_the_same_text(receiver: JsonReceiver) -> None:
    """ntfy:// of apprise posts JSON to a server of one's own, too."""
    [*channel("phone", f"ntfy://127.0.0.1:{receiver.port}/{TOKEN}").send([message("TSLA")])]
    [posted] = receiver.taken
    assert (posted["topic"], posted["title"]) == (TOKEN, "TSLA critical: gap_5pct")
    assert posted["message"].startswith(message("TSLA").text)


class Smtp(socketserver.StreamRequestHandler):
    """As much of SMTP as one mail needs. It keeps what it takes in ``mails`` of its class."""

    mails: list[bytes]

    def handle(self) -> None:
        self.wfile.write(b"220 mail.test\r\n")
        data = b""
        while line := self.rfile.readline():
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                while (part := self.rfile.readline()) != b".\r\n":
                    data += part
                self.mails.append(data)
            self.wfile.write(b"221 bye\r\n" if line.upper().startswith(b"QUIT") else b"250 OK\r\n")


def test_an_alert_is_an_e_mail() -> None:
    handler = type("Mails", (Smtp,), {"mails": []})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = (
            f"mailto://127.0.0.1:{server.server_address[1]}?from=barflow@example.com&to=desk@example.com&mode=insecure"
        )
        [*channel("desk", url).send([message("TSLA")])]
        server.shutdown()
    [mail] = handler.mails  # type: ignore[attr-defined]
    assert b"Subject: TSLA critical: gap_5pct" in mail
    assert b"To: desk@example.com" in mail


@pytest.mark.parametrize("fault", [302, 401, 404, 429, 500, DROP])
def test_a_failure_shows_neither_url_nor_answer(
    receiver: JsonReceiver, fault: int | str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.fault = fault
    error = down(receiver.channel())
    seen = f"{error} {error.__cause__} {error.__context__} {caplog.text} {capfd.readouterr()}"
    assert str(error).startswith(f"apprise-{receiver.name} accepts no alerts now (")
    assert error.reason == ("no connection" if fault == DROP else f"HTTP {fault}")
    for hidden in (TOKEN, LEAK.decode(), str(receiver.port), "290.76"):
        assert hidden not in seen
    assert not [item for item in caplog.records if item.name.startswith(("apprise", "urllib3"))]
    assert receiver.requests == 1, "a redirect is not followed, and nothing is sent twice"


def test_no_log_holds_a_url_when_all_is_well(receiver: JsonReceiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    [*receiver.channel().send([message()])]
    assert f"/{TOKEN}" in receiver.paths[0]
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("where", ["answer", "connection"])
def test_a_service_that_answers_byte_by_byte_or_never_is_cut_off_in_time(
    receiver: JsonReceiver, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(people, "LIMIT_SECONDS", 0.5)
    receiver.fault = DRIP
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = receiver.port if where == "answer" else silent.getsockname()[1]
        sender = channel("slow", f"json://127.0.0.1:{port}/{TOKEN}")
        started = time.monotonic()
        assert down(sender).reason == "TimeoutError"
        assert 0.4 < time.monotonic() - started < 3


def test_an_error_inside_a_plugin_is_its_class(receiver: JsonReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    sender = receiver.channel()
    service = sender._service()

    def broken(**_: object) -> bool:
        raise RuntimeError(receiver.url)

    monkeypatch.setattr(service, "notify", broken)
    monkeypatch.setattr(sender, "_service", lambda: service)
    assert down(sender).reason == "RuntimeError"


# Settings.


def test_each_url_is_a_channel_that_is_named_without_its_secret(receiver: JsonReceiver) -> None:
    given = f"{receiver.url} team=ntfy://127.0.0.1:{receiver.port}/{TOKEN} oncall=secretsmanager:barflow/dev/apprise#a"
    channels = open_channels(load_settings(apprise_url=given))
    assert [item.name for item in channels] == ["apprise-json", "apprise-team", "apprise-oncall"]
    assert [item.place for item in channels] == ["json", "ntfy", "secretsmanager:barflow/dev/apprise#a"]
    assert {kind_of(item.name) for item in channels} == {"apprise"}
    renewed = open_channels(load_settings(apprise_url=given.replace(TOKEN, "renewed")))
    assert [item.name for item in renewed] == [item.name for item in channels], "its alerts still wait for it"
    assert TOKEN not in repr(load_settings(apprise_url=given))


@pytest.mark.parametrize(
    "wrong",
    [
        "hidden",
        "Team=json://hidden",
        "team=hidden",
        "a=json://hidden a=json://other",
        "json://hidden json://other",
        " ".join(f"n{number}=json://hidden" for number in range(11)),
    ],
)
def test_a_setting_of_another_form_is_rejected_by_name(wrong: str) -> None:
    with pytest.raises(BadInputError, match="settings are wrong: BARFLOW_APPRISE_URL must be") as raised:
        load_settings(apprise_url=wrong)
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("wrong", ["nosuchservice://hidden", "discord://hidden", "https://example.com/hidden"])
def test_a_url_that_apprise_does_not_understand_is_refused_at_the_start(
    wrong: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(BadInputError, match="the URL of apprise-team must be one that apprise understands") as raised:
        open_channels(load_settings(apprise_url=f"team={wrong}"))
    assert "hidden" not in f"{raised.value} {raised.value.__context__} {caplog.text} {capfd.readouterr()}"


def test_a_secret_that_cannot_be_read_stops_only_its_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    [sender] = open_channels(Settings(apprise_url=SecretStr("team=secretsmanager:barflow/dev/apprise#team")))
    with pytest.raises(UnavailableError, match="the secret barflow/dev/apprise cannot be read"):
        [*sender.send([message()])]
