"""The commands `barflow alerts …`: show the rules, list the alerts that fired, and test the rules on recorded bars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from barflow.cli.channel_test import try_channel
from barflow.cli.common import Json, OnlySymbols, State, log, opened, print_json, stored_names
from barflow.cli.mutes import mute, mutes, unmute
from barflow.errors import BadInputError
from barflow.settings import load_settings
from barflow.text import counted, visible

if TYPE_CHECKING:
    from barflow.alerts.evaluate import Event
    from barflow.alerts.rules import Rule, RuleBook
    from barflow.market.actions import Split

alerts_app = typer.Typer(no_args_is_help=True, help="Show alert rules and the alerts that fired; test rules.")

RuleId = Annotated[str | None, typer.Option(help="Only the rule with this id.")]


@alerts_app.command("rules", epilog="Example:  BARFLOW_ALERTS_FILE=my.toml barflow alerts rules")
def rules(as_json: Json = False) -> None:
    """Check the rules and show them.

    For each it shows when it fires, how far it looks back, and which channels get its alerts.
    """
    from barflow.alerts.rules_file import DEFAULT_RULES, load_rules
    from barflow.cli.terminal import console, table
    from barflow.market.instruments import load_instruments

    settings = load_settings()
    book, path = load_rules(settings.alerts_file), settings.alerts_file or DEFAULT_RULES
    book.check_others(settings.symbols, load_instruments(settings.instruments_file))
    own = {
        symbol: [rule for rule in settled if rule not in book.all] for symbol, settled in book.with_own_values.items()
    }
    if as_json:
        print_json(
            {
                "file": str(path),
                "lists": book.lists,
                "rules": [rule.model_dump() for rule in book.all],
                "per_symbol": {symbol: [rule.model_dump() for rule in found] for symbol, found in own.items()},
            }
        )
        return
    shown = table("", ("id", "symbols", "fires when", "severity", "cool-down", "looks back", "channels"), 7)
    for symbol, rule in [(None, rule) for rule in book.all] + [(name, rule) for name in own for rule in own[name]]:
        back = f"{rule.history} sessions" if rule.history > 1 else ""
        cool_down = f"{rule.cool_down_minutes} min"
        names = symbol or ", ".join(rule.symbols)
        shown.add_row(rule.id, names, condition_text(rule), rule.severity, cool_down, back, ", ".join(rule.channels))
    console().print(shown)
    for name, members in book.lists.items():
        console().print(f"@{name}: {', '.join(members)}")
    console().print(f"{counted(len(book.all), 'rule')} from {path}")


def condition_text(rule: Rule) -> str:
    """Return a rule's condition, or its kind and the values of that kind: ``move: 3 percent, 30 minutes``."""
    from barflow.alerts.rules import BaseRule, ExpressionRule

    if isinstance(rule, ExpressionRule):
        return rule.when.strip()
    common = {*BaseRule.model_fields, "kind"}
    own = {name: value for name, value in rule.model_dump(exclude=common).items() if value is not None}
    side = "" if own.pop("direction", "both") == "both" else f", {rule.model_dump()['direction']}"
    as_of = own.pop("as_of", None)
    values = ", ".join(f"{value:g} {name}" for name, value in own.items()) + (f" as of {as_of}" if as_of else "")
    return rule.kind + (f": {values}" if values else "") + side


@alerts_app.command("list", epilog="Example:  barflow alerts list --symbols TSLA --undelivered")
def list_(
    symbols: OnlySymbols = None,
    rule: RuleId = None,
    undelivered: Annotated[bool, typer.Option(help="Only alerts that a channel has not taken yet.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="The most alerts to list, newest bar first.")] = 50,
    state: State = None,
    as_json: Json = False,
) -> None:
    """List the alerts that fired, and their delivery on each channel."""
    from barflow.alerts.outbox import Outbox

    with opened(state, postgres=False) as stores:
        names = stored_names(symbols, stores.settings)
        found = Outbox(stores.database).find(names, rule, undelivered=undelivered, limit=limit)
    if as_json:
        print_json({"alerts": found})
    else:
        _show_alerts(found)


def _show_alerts(found: Sequence[Mapping[str, Any]]) -> None:
    from barflow.cli.terminal import console, table
    from barflow.market.sessions import new_york

    if not found:
        console().print("no alerts: `barflow alerts rules` shows what fires one")
        return
    shown = table("", ("bar (New York)", "severity", "rule", "alert", "delivery"), 5)
    for item in found:
        bar = f"{new_york(item['bar_start']):%Y-%m-%d %H:%M}"
        shown.add_row(bar, item["severity"], item["rule"], item["message"]["text"], _delivery(item["channels"]))
    console().print(shown)


def _delivery(channels: Mapping[str, Mapping[str, Any]]) -> Text:
    """Return the state of each channel, and in a line of its own each error."""
    done = [f"{name} {_progress(state)}" for name, state in channels.items()]
    tried = [f"{name}: {state['last_error']}" for name, state in channels.items() if state["last_error"]]
    return Text("\n".join(visible(line) for line in (", ".join(done), *tried)))


def _progress(state: Mapping[str, Any]) -> str:
    if state["delivered_at"]:
        return "sent"
    if state.get("muted_at"):
        return "muted"
    return "dropped" if state.get("dropped_at") else "waits"


@alerts_app.command("webhooks", epilog="Example:  barflow alerts webhooks --enable webhook-1f2e3d4c")
def webhooks(
    enable: Annotated[
        str | None, typer.Option(help="Enable this webhook again. It gets the alerts from now on.")
    ] = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Show the webhooks of the settings, and those that answered 410 Gone and get no more alerts."""
    from barflow.alerts.endpoints import Endpoints
    from barflow.alerts.webhook import WebhookChannel
    from barflow.cli.terminal import console, table

    with opened(state, postgres=False) as stores:
        endpoints = Endpoints(stores.database)
        if enable and not endpoints.enable(enable):
            raise BadInputError(
                f"--enable: no disabled webhook has the name {enable}; `barflow alerts webhooks` lists them"
            )
        disabled = endpoints.disabled()
        set_up = [WebhookChannel(stores.settings, url) for url in stores.settings.webhook_url]
    hosts = {item.name: item.host for item in set_up}
    found = [
        {
            "name": name,
            "host": hosts.get(name) or disabled[name]["host"],
            "set_up": name in hosts,
            "disabled_at": disabled[name]["disabled_at"] if name in disabled else None,
        }
        for name in dict.fromkeys((*hosts, *disabled))
    ]
    if as_json:
        print_json({"webhooks": found})
        return
    shown = table("", ("webhook", "host", "state"), 2)
    for item in found:
        since = item["disabled_at"]
        state_now = f"disabled since {since:%Y-%m-%d %H:%M} UTC" if since else "enabled"
        shown.add_row(item["name"], item["host"], state_now if item["set_up"] else f"{state_now}, not in the settings")
    console().print(shown if found else "no webhooks: set BARFLOW_WEBHOOK_URL and BARFLOW_WEBHOOK_SECRET")


@alerts_app.command(
    "test",
    epilog="\b\nExamples:\n"
    "  barflow alerts test --replay bars.csv --rule gap_5pct --json\n"
    "  barflow alerts test --replay bars.csv --actions actions.csv",
)
def try_rules(
    replay: Annotated[
        Path,
        typer.Option(
            help="Recorded bars: a CSV datetime,open,high,low,close,volume,symbol in New York time, or a folder of "
            "Twelve Data JSON answers."
        ),
    ],
    rule: RuleId = None,
    adjust: Annotated[
        str, typer.Option(help="splits: compare prices in the shares of each session. none: compare them as recorded.")
    ] = "splits",
    actions: Annotated[
        Path | None, typer.Option(help="CSV file with the splits, in the format of `barflow actions import`.")
    ] = None,
    state: Annotated[Path | None, typer.Option(help="State folder with staged splits.")] = None,
    as_json: Json = False,
) -> None:
    """Show which alerts the rules fire on recorded bars. Nothing is stored or sent.

    The splits come from --actions or --state.
    """
    from barflow.alerts.message import describe
    from barflow.alerts.rules_file import load_rules
    from barflow.backtest.run import run
    from barflow.backtest.sources import from_recording
    from barflow.cli.terminal import console, table
    from barflow.market.recordings import Recording
    from barflow.market.sessions import new_york

    book = only_rule(load_rules(load_settings().alerts_file), rule)
    recording = Recording.load(replay)
    splits = splits_to_test(adjust, actions, state, recording.symbols)
    found = run(book, from_recording(recording, splits, log), recording.as_of)
    events = found.events
    for note in found.notes:
        log(note)
    if as_json:
        print_json([event_json(event) for event in events])
        return
    if events:
        shown = table("", ("bar (New York)", "rule", "alert"), 3)
        for event in events:
            shown.add_row(f"{new_york(event.bar_start):%Y-%m-%d %H:%M}", event.rule.id, describe(event))
        console().print(shown)
    console().print(f"{counted(len(events), 'alert')} on {recording.describe}")


def splits_to_test(
    adjust: str, file: Path | None, state: Path | None, symbols: Iterable[str]
) -> Mapping[str, Sequence[Split]] | None:
    """Return the splits of each symbol from a file or a state, or None to compare prices as they are recorded."""
    from barflow.market.actions import Split
    from barflow.market.sessions import utc_now
    from barflow.pipeline.actions import actions_of
    from barflow.staging.actions import Actions

    if adjust not in ("none", "splits"):
        raise BadInputError(f"--adjust {adjust}: choose none or splits")
    if file and state:
        raise BadInputError("--actions and --state: give one of them")
    if adjust == "none":
        return None
    found: dict[str, list[Split]] = {}
    if file:
        for (symbol, _), days in actions_of(file, utc_now()).items():
            found.setdefault(symbol, []).extend(item for item in days.values() if isinstance(item, Split))
    elif state:
        with opened(state, postgres=False) as stores:
            found = Actions(stores.database).splits(list(symbols))
    if not any(found.get(symbol) for symbol in symbols):
        log(
            "no splits of these symbols are given, so prices are compared as recorded: use --actions FILE.csv or "
            "--state DIR"
        )
    return found


def only_rule(book: RuleBook, rule: str | None) -> RuleBook:
    """Return a book of the rule with this id, or the whole book. Raise BadInputError for an unknown id."""
    if rule is None:
        return book
    if rule not in {item.id for item in book.all}:
        raise BadInputError(f"--rule {rule}: no such rule; there are {', '.join(item.id for item in book.all)}")
    return book.only(rule)


def event_json(event: Event) -> dict[str, Any]:
    """Return an alert of recorded or archived bars as JSON."""
    return {
        "id": event.id,
        "rule": event.rule.id,
        "symbol": event.symbol,
        "session_date": event.session_date.isoformat(),
        "bar_start": f"{event.bar_start:%Y-%m-%dT%H:%M:%SZ}",
        "direction": event.direction,
        "value": event.value,
    }


alerts_app.command("test-channel", epilog="Example:  barflow alerts test-channel apprise-team")(try_channel)
alerts_app.command("mute", epilog='Example:  barflow alerts mute gap_5pct --until 8h --reason "earnings week"')(mute)
alerts_app.command("unmute", epilog="Example:  barflow alerts unmute gap_5pct")(unmute)
alerts_app.command("mutes", epilog="Example:  barflow alerts mutes --all")(mutes)
