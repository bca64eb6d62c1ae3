"""Webhooks are signed, go to checked addresses only, end in time, and show neither secret nor body when they fail."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook
from test_notify import message
from webhook_receivers import DRIP, DROP, HOST, LEAK, NEW_SECRET, SECRET, TlsReceiver, channel, example, resolver

from barflow.alerts import webhook_connection
from barflow.alerts.channels import ChannelDownError, EndpointGoneError, open_channels
from barflow.alerts.webhook import WebhookChannel
from barflow.alerts.webhook_connection import AddressRefusedError, check
from barflow.errors import BadInputError
from barflow.settings import Settings, load_settings

METADATA = ("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "fe80::1%eth0", "::ffff:169.254.169.254")


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[TlsReceiver]:
    with TlsReceiver(tmp_path) as running:
        yield running


def down(sender: WebhookChannel, count: int = 1) -> ChannelDownError:
    with pytest.raises(ChannelDownError) as raised:
        [*sender.send([message(f"S{number}") for number in range(count)])]
    return raised.value


def test_a_webhook_is_the_signed_message_and_the_example_receiver_acts_on_it_once(receiver: TlsReceiver) -> None:
    sender, sent = channel(receiver.url, receiver.certificate), [message("TSLA"), message("BRK.B")]
    for _ in range(2):
        assert [*sender.send(sent)] == [{item.id: None} for item in sent]
    assert receiver.acted == [json.loads(item.model_dump_json()) for item in sent], "a repeated id changes nothing"
    first, second, *_ = receiver.headers
    assert (first["webhook-id"], second["webhook-id"]) == tuple(item.id for item in sent)
    assert first["host"] == f"{HOST}:{receiver.port}"
    assert first["content-type"] == "application/json"
    assert abs(int(first["webhook-timestamp"]) - time.time()) < 60
    # The signature of the specification, computed without the package.
    signed = f"{sent[0].id}.{first['webhook-timestamp']}.{sent[0].model_dump_json()}".encode()
    digest = hmac.new(base64.b64decode(SECRET.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    assert first["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert receiver.connections == 2, "one connection for the messages of a delivery"
    assert receiver.names == [HOST, HOST], "the host's name is sent, though the connection goes to an address"


def test_two_secrets_sign_while_one_is_renewed(receiver: TlsReceiver) -> None:
    """Receivers with the old secret and with the new one accept the same message."""
    sender = channel(receiver.url, receiver.certificate, secret=f"{NEW_SECRET}, {SECRET}")
    [*sender.send([message()])]
    assert len(receiver.acted) == 1
    assert receiver.headers[0]["webhook-signature"].count("v1,") == 2
    for secret in (SECRET, NEW_SECRET):
        Webhook(secret).verify(message().model_dump_json(), receiver.headers[0])


def test_the_example_receiver_rejects_what_is_forged_or_old(tmp_path: Path) -> None:
    acted: list[dict[str, Any]] = []
    receiver = example.Receiver(SECRET, str(tmp_path / "seen.sqlite"), acted.append)
    body = message().model_dump_json()

    def headers(at: datetime, secret: str = SECRET) -> dict[str, str]:
        stamp = str(int(at.timestamp()))
        signature = Webhook(secret).sign(message().id, at, body)
        return {"Webhook-Id": message().id, "Webhook-Timestamp": stamp, "Webhook-Signature": signature}

    now = datetime.now(UTC)
    good = headers(now)
    rejected = [
        (good, body.replace("290.76", "90.76")),
        (headers(now - timedelta(minutes=6)), body),
        (headers(now + timedelta(minutes=6)), body),
        ({**good, "Webhook-Timestamp": str(int(now.timestamp()) + 1)}, body),
        ({**good, "Webhook-Id": "other|TSLA|2025-07-07T13:30:00Z"}, body),
        ({**good, "Webhook-Signature": "v1"}, body),
        ({**good, "Webhook-Signature": ""}, body),
        (headers(now, NEW_SECRET), body),
        ({}, body),
    ]
    assert [receiver.receive(given, text.encode()) for given, text in rejected] == [401] * len(rejected)
    assert receiver.receive(good, b"\xff") == 401
    assert acted == []
    assert [receiver.receive(good, body.encode()) for _ in range(2)] == [204, 204]
    assert len(acted) == 1, "a repeated id is accepted and not acted on"


def test_an_alert_that_the_receiver_fails_to_handle_arrives_again(receiver: TlsReceiver) -> None:
    sender = channel(receiver.url, receiver.certificate)
    receiver.fault, receiver.times = 500, 1
    assert down(sender).reason == "HTTP 500"
    [*sender.send([message("S0")])]
    assert [item["symbol"] for item in receiver.acted] == ["S0"]


@pytest.mark.parametrize("fault", [302, 307, 400, 401, 404, 500, 503, DROP])
def test_a_failure_shows_neither_secret_nor_body_nor_address(
    receiver: TlsReceiver, fault: int | str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.fault, receiver.location = fault, f"https://{HOST}:{receiver.port}/other"
    error = down(channel(receiver.url, receiver.certificate))
    seen = f"{error} {error.__cause__} {caplog.text} {capsys.readouterr()}"
    assert str(error).startswith(f"The webhook at {HOST} accepts no alerts now (")
    assert error.reason.startswith("RemoteDisconnected" if fault == DROP else f"HTTP {fault}")
    for hidden in (SECRET, SECRET.removeprefix("whsec_"), LEAK.decode(), "/alerts", "290.76"):
        assert hidden not in seen
    assert receiver.requests == 1, "a redirect is not followed, and nothing is sent twice"


def test_a_refused_message_does_not_stop_others_and_a_broken_receiver_is_tried_three_times(
    receiver: TlsReceiver,
) -> None:
    sender, sent = channel(receiver.url, receiver.certificate), [message(f"S{number}") for number in range(9)]
    receiver.fault, receiver.times = 422, 2
    receipts = [*sender.send(sent)]
    assert receipts[:3] == [{"gap_5pct|S0|2025-07-07T13:30:00Z": "HTTP 422"}, *receipts[1:2], {sent[2].id: None}]
    assert len(receiver.acted) == 7
    receiver.times, receiver.requests = -1, 0
    assert down(sender, 9).reason == "HTTP 422"
    assert receiver.requests == 3


@pytest.mark.parametrize(
    ("asked", "waits"), [("120", 120), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("9" * 5000, None), ("-1", None)]
)
def test_a_receiver_can_ask_to_wait(receiver: TlsReceiver, asked: str, waits: int | None) -> None:
    receiver.fault, receiver.retry_after = 429, asked
    error = down(channel(receiver.url, receiver.certificate), 5)
    assert (error.reason, error.retry_after) == ("HTTP 429", waits)
    assert receiver.requests == 1


def test_410_means_that_the_endpoint_is_gone(receiver: TlsReceiver) -> None:
    receiver.fault = 410
    with pytest.raises(EndpointGoneError, match=r"answered 410 Gone and is disabled.* --enable webhook-[0-9a-f]{8}"):
        [*channel(receiver.url, receiver.certificate).send([message()])]


class SlowToEnd(threading.Timer):
    """A timer whose thread ends late, as on a loaded machine."""

    def run(self) -> None:
        super().run()
        time.sleep(0.2)


@pytest.mark.parametrize("where", ["answer", "handshake"])
def test_a_receiver_that_sends_byte_by_byte_or_nothing_is_cut_off_in_time(
    receiver: TlsReceiver, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(webhook_connection, "TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(threading, "Timer", SlowToEnd)
    receiver.fault = DRIP
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = receiver.port if where == "answer" else silent.getsockname()[1]
        started = time.monotonic()
        error = down(channel(f"https://{HOST}:{port}/alerts", receiver.certificate))
        assert 0.4 < time.monotonic() - started < 3
    assert error.reason == "TimeoutError"
    assert not [item for item in threading.enumerate() if isinstance(item, SlowToEnd)], "no timer is left"


# Addresses.


def test_only_public_addresses_are_allowed_and_private_ones_by_a_setting() -> None:
    private = ("127.0.0.1", "10.20.0.5", "172.16.0.1", "192.168.1.1", "::1", "fd12::1", "::ffff:10.0.0.1", "0.0.0.0")
    hidden = ("64:ff9b::a14:5", "2002:a14:5::1", "::7f00:1", "100.64.0.1", "192.0.2.1", "224.0.0.1", "255.255.255.255")
    for address in (*private, *hidden, *METADATA):
        with pytest.raises(AddressRefusedError):
            check(["93.184.216.34", address], allow_private=False)
    check(["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"], allow_private=False)
    check([address for address in private if address != "0.0.0.0"], allow_private=True)
    for address in (*METADATA, "0.0.0.0", "224.0.0.1", "64:ff9b::a9fe:a9fe"):
        with pytest.raises(AddressRefusedError, match="an address that no webhook is sent to"):
            check([address], allow_private=True)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "2130706433", "0x7f.1"])
def test_this_machine_is_refused_however_it_is_written(receiver: TlsReceiver, host: str) -> None:
    """These names go through the system's own resolver."""
    url = f"https://{host}:{receiver.port}/"
    sender = channel(url, receiver.certificate, allow_private=False, resolve=webhook_connection.resolve)
    assert "not a public address; set BARFLOW_WEBHOOK_ALLOW_PRIVATE" in down(sender).reason
    assert receiver.connections == 0


def test_a_name_that_changes_its_address_after_the_check_leads_nowhere_else(receiver: TlsReceiver) -> None:
    """DNS rebinding: the name is resolved once per connection, and the connection goes to what was checked."""
    asked: list[str] = []
    answers = resolver(["127.0.0.1"], ["169.254.169.254"])

    def changing(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers(host, port)

    sender = channel(receiver.url, receiver.certificate, resolve=changing)
    [*sender.send([message("S0"), message("S1")])]
    assert (asked, len(receiver.acted), receiver.connections) == ([HOST], 2, 1)
    assert "169.254.169.254 is an address that no webhook is sent to" in down(sender).reason, "checked again"
    assert receiver.connections == 1


def test_a_connection_that_the_receiver_closed_is_checked_again(receiver: TlsReceiver) -> None:
    receiver.fault, receiver.times = 500, 1  # it closes the connection after that answer
    sender = channel(receiver.url, receiver.certificate, resolve=resolver(["127.0.0.1"], ["10.0.0.1", "169.254.1.1"]))
    error = down(sender, 2)
    assert "169.254.1.1 is an address" in error.reason
    assert receiver.requests == 1


def test_a_connection_goes_to_a_checked_address_and_never_to_the_name(
    receiver: TlsReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialled: list[tuple[str, int]] = []

    def dial(address: tuple[str, int], timeout: float) -> socket.socket:
        dialled.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", dial)
    public = ["93.184.216.34", "93.184.216.35"]
    sender = channel(receiver.url, receiver.certificate, allow_private=False, resolve=resolver(public, ["10.0.0.1"]))
    assert down(sender).reason == "ConnectionRefusedError"
    assert dialled == [(address, receiver.port) for address in public]
    assert "10.0.0.1 is not a public address" in down(sender).reason
    assert len(dialled) == 2


def test_the_certificate_must_be_for_the_name_and_of_a_known_authority(receiver: TlsReceiver, tmp_path: Path) -> None:
    other = f"https://other.test:{receiver.port}/"
    assert down(channel(other, receiver.certificate)).reason == "SSLCertVerificationError"
    (tmp_path / "unknown").mkdir()
    with TlsReceiver(tmp_path / "unknown") as unknown:
        assert down(channel(unknown.url, receiver.certificate)).reason == "SSLCertVerificationError"
    assert (receiver.requests, unknown.requests) == (0, 0)


def test_a_plain_http_server_gets_no_alert(receiver: TlsReceiver) -> None:
    plain = http.client.HTTPSConnection  # the type that the connection extends; a plain socket has no TLS
    assert issubclass(webhook_connection.CheckedConnection, plain)
    with socket.create_server(("127.0.0.1", 0)) as server:
        received: list[bytes] = []

        def answer() -> None:
            connection, _ = server.accept()
            received.append(connection.recv(10_000))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        assert down(channel(f"https://{HOST}:{server.getsockname()[1]}/", receiver.certificate)).reason == "SSLError"
        thread.join()
    assert b"TSLA" not in received[0]


# Settings.


@pytest.mark.parametrize(
    "wrong",
    [
        "http://bot.example.com/",
        "https://user:hidden@bot.example.com/",
        "https://bot.example.com/?token=hidden",
        "https://bot.example.com/#hidden",
        "https://bot.example.com:0/",
        "https://bot.example.com:70000/",
        "https://",
        "bot.example.com",
        "https://bot.example.com/a b",
        "https://Bot.example.com/",
        "https://bücher.example/",
        ",".join(f"https://bot{number}.example.com/" for number in range(6)),
        "https://bot.example.com/,https://bot.example.com/",
    ],
)
def test_an_address_that_is_not_https_or_holds_a_credential_is_rejected(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BARFLOW_WEBHOOK_URL", wrong)
    with pytest.raises(BadInputError, match="settings are wrong: BARFLOW_WEBHOOK_URL must be") as raised:
        load_settings()
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("wrong", ["hidden", "whsec_hidden!", "whsec_" + "aa" * 8, "whsec_" + "a" * 100, "a,b,c"])
def test_a_secret_of_another_form_is_rejected_by_name(wrong: str) -> None:
    settings = Settings(webhook_url=("https://bot.example.com/",), webhook_secret=SecretStr(wrong))
    with pytest.raises(BadInputError, match="BARFLOW_WEBHOOK_SECRET must be whsec_ and the base64") as raised:
        open_channels(settings)
    assert wrong not in str(raised.value)


def test_each_address_is_a_channel_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARFLOW_WEBHOOK_URL", "https://one.example.com/a, https://two.example.com:8443")
    with pytest.raises(BadInputError, match="BARFLOW_WEBHOOK_URL is set without BARFLOW_WEBHOOK_SECRET"):
        open_channels(load_settings())
    monkeypatch.setenv("BARFLOW_WEBHOOK_SECRET", f"{SECRET},{NEW_SECRET}")
    one, two = open_channels(load_settings())
    assert one.name != two.name
    assert all(item.name.startswith("webhook-") and "." not in item.name for item in (one, two))
