"""The command `barflow alerts test-channel`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from barflow.cli.common import Json, out, print_json
from barflow.errors import BadInputError, BarflowError
from barflow.settings import Settings, load_settings
from barflow.text import visible

if TYPE_CHECKING:
    from barflow.alerts.channels import Channel
    from barflow.alerts.message import Message


def try_channel(
    name: Annotated[
        str, typer.Argument(help="A channel, such as slack or apprise-team. webhook or apprise: all of them.")
    ],
    as_json: Json = False,
) -> None:
    """Send a test message through a channel, once.

    Its kind and its rule are `test`, its symbol is `*`, and it is not in the outbox. Bots must ignore it.
    """
    from barflow.alerts.message import trial
    from barflow.market.sessions import utc_now

    settings = load_settings()
    channels = _channels(name, settings)
    message = trial(settings.env, utc_now())
    failed = {channel.name: reason for channel in channels if (reason := _failure(channel, message))}
    sent = {channel.name: channel.place for channel in channels if channel.name not in failed}
    if as_json:
        print_json({"id": message.id, "sent": sent, "failed": failed})
    else:
        for channel, place in sent.items():
            out.print(visible(f"sent {message.id} to {channel} ({place})"))
    if failed:
        reasons = "; ".join(f"{reason} from {channel}" for channel, reason in failed.items())
        raise BarflowError(
            f"the test message was not accepted: {visible(reasons)}. It is not sent again. Correct the channel's "
            f"settings, then run `barflow alerts test-channel {name}` again."
        )


def _channels(name: str, settings: Settings) -> list[Channel]:
    """Return the channels of a name or a kind. Raise BadInputError if none is set up."""
    from barflow.alerts.channels import kind_of, open_channels
    from barflow.alerts.outbox import OUTBOX_CHANNEL

    channels = open_channels(settings)
    if not channels and settings.env != "local":
        from barflow.operations.deployment import open_stores

        channels = open_channels(open_stores(settings.env)[0].settings)
    if name == OUTBOX_CHANNEL:
        raise BadInputError(f"{name} is the outbox itself: nothing is sent through it")
    if found := [channel for channel in channels if name in (channel.name, kind_of(channel.name))]:
        return found
    there = ", ".join(channel.name for channel in channels) or "none"
    raise BadInputError(
        f"{name} is not set up. The channels that are set up: {there}. docs/alerts.md lists the settings of each."
    )


def _failure(channel: Channel, message: Message) -> str | None:
    """Return why a channel did not accept a message, or None."""
    from barflow.alerts.channels import ChannelDownError, EndpointGoneError

    try:
        receipts = [*channel.send([message])]
    except EndpointGoneError:
        return "HTTP 410"
    except ChannelDownError as error:
        return error.reason
    except BarflowError as error:
        return str(error)
    return receipts[0][message.id]
