"""The commands `barflow alerts mute`, `unmute` and `mutes`."""

from __future__ import annotations

import getpass
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barflow.cli.common import Json, State, opened, out, present_symbols, print_json
from barflow.errors import BadInputError
from barflow.text import clean, counted, visible

if TYPE_CHECKING:
    from barflow.pipeline.stores import Stores

DURATION = re.compile(r"([1-9][0-9]{0,3})([mhd])", re.ASCII)
UNITS = {"m": "minutes", "h": "hours", "d": "days"}
LONGEST = timedelta(days=366)
MOST_CHARACTERS = 200

Target = Annotated[str, typer.Argument(metavar="RULE|SYMBOL", help="A rule's id, or a symbol.")]
OfRule = Annotated[str | None, typer.Option("--symbols", help="With a rule: only these symbols, such as AAPL,MSFT.")]
By = Annotated[str | None, typer.Option(help="Your name, for the record (default: your user on this machine).")]


def mute(
    target: Target,
    until: Annotated[str, typer.Option(help="A duration such as 90m, 8h or 5d, or a moment: 2026-12-01T14:30Z.")],
    reason: Annotated[str | None, typer.Option(help="Why, for those who read the list.")] = None,
    symbols: OfRule = None,
    by: By = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Stop sending the alerts of a rule or a symbol for a time.

    They still fire and are stored. A second mute of the same rule and symbols replaces the first.
    """
    from barflow.alerts.mutes import Mutes
    from barflow.alerts.mutes import target as covered
    from barflow.market.sessions import utc_now

    end = _end(until, utc_now())
    why, who = _line(reason, "--reason"), _who(by)
    with opened(state, postgres=False) as stores:
        rule, names = _covered(target, symbols, stores)
        added = Mutes(stores.database).add(rule, names, end, who, why)
    if as_json:
        print_json({"mute": _shown(added)})
    else:
        out.print(f"muted {covered(added)} until {end:%Y-%m-%d %H:%M} UTC; `barflow alerts mutes` lists what is muted")


def unmute(
    target: Target,
    symbols: OfRule = None,
    by: By = None,
    state: State = None,
) -> None:
    """Send the alerts of a rule or a symbol again. Those that were muted stay unsent.

    Without --symbols, every mute of the rule ends.
    """
    from barflow.alerts.mutes import Mutes
    from barflow.market.sessions import utc_now

    with opened(state, postgres=False) as stores:
        rule, names = _covered(target, symbols, stores)
        count = Mutes(stores.database).end(rule, names, _who(by), utc_now())
    if not count:
        raise BadInputError(f"{target} is not muted; `barflow alerts mutes` lists what is")
    out.print(f"ended {counted(count, 'mute')} of {target}")


def mutes(
    every: Annotated[bool, typer.Option("--all", help="Also the mutes that have ended, with who ended them.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """List the mutes that are active."""
    from barflow.alerts.mutes import Mutes
    from barflow.alerts.mutes import target as covered
    from barflow.cli.terminal import console, table
    from barflow.market.sessions import utc_now

    now = utc_now()
    with opened(state, postgres=False) as stores:
        store = Mutes(stores.database)
        found = store.all() if every else store.active(now)
    if as_json:
        print_json({"mutes": [_shown(item) for item in found]})
        return
    shown = table("", ("muted", "since (UTC)", "until (UTC)", "by", "reason", "state"), 6)
    for item in found:
        times = (f"{item[name]:%Y-%m-%d %H:%M}" for name in ("since", "until"))
        cells = (covered(item), *times, item["by"], item["reason"] or "", _state(item, now))
        shown.add_row(*map(visible, cells))
    console().print(shown if found else "no mutes: every alert is sent")


def _state(item: Mapping[str, Any], now: datetime) -> str:
    if item["ended_at"]:
        return f"ended {item['ended_at']:%Y-%m-%d %H:%M} by {item['ended_by']}"
    return "active" if item["until"] > now else "over"


def _shown(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a mute says, without what its report needs."""
    return {name: item[name] for name in ("rule", "symbols", "since", "until", "by", "reason", "ended_at", "ended_by")}


def _covered(target: str, symbols: str | None, stores: Stores) -> tuple[str | None, list[str]]:
    """Return the rule and the symbols of a mute. Raise BadInputError for a text that is neither."""
    from barflow.alerts.outbox import AlertStates
    from barflow.alerts.rules_file import load_rules

    rules = [rule.id for rule in load_rules(stores.settings.alerts_file).all]
    if target in rules:
        return target, [*present_symbols(symbols, stores.settings)] if symbols else []
    if symbols:
        raise BadInputError(f"--symbols: {target} is no rule; there are {', '.join(rules)}")
    if target == target.upper():
        [symbol] = present_symbols(target, stores.settings) if "," not in target else [target]
        known = present_symbols(None, stores.settings)
        if symbol in known or AlertStates(stores.database).load([symbol]):
            return None, [symbol]
    raise BadInputError(f"{target} is no rule and no symbol that is evaluated; the rules are {', '.join(rules)}")


def _end(text: str, now: datetime) -> datetime:
    """Return the moment (UTC) of a duration from now or of a text. Raise BadInputError for a wrong one."""
    from barflow.market.sessions import parse_moment

    duration = DURATION.fullmatch(text.strip())
    try:
        end = now + timedelta(**{UNITS[duration[2]]: int(duration[1])}) if duration else parse_moment(text.strip())
    except BadInputError:
        raise BadInputError(
            f"--until {text}: give a duration such as 90m, 8h or 5d, or a moment with its offset, such as "
            "2026-12-01T14:30Z"
        ) from None
    if not now < end <= now + LONGEST:
        raise BadInputError(f"--until {text}: give a time from now on, at most {LONGEST.days} days away")
    return end


def _who(by: str | None) -> str:
    """Return who runs the command: ``--by``, or the user of the operating system."""
    if by:
        return _line(by, "--by") or ""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise BadInputError("this machine does not know your user: give your name as --by") from None


def _line(text: str | None, option: str) -> str | None:
    """Return a text of one line, or None without one. Raise BadInputError for another."""
    try:
        cleaned = clean(text or "")
    except ValueError as error:
        raise BadInputError(f"{option} {error}") from None
    if len(cleaned) > MOST_CHARACTERS:
        raise BadInputError(f"{option} must have at most {MOST_CHARACTERS} characters")
    return cleaned or None
