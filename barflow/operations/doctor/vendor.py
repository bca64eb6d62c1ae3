"""Checks of Twelve Data: the key, the plan's credits, and this machine's clock. They use one API credit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from pydantic import SecretStr

from barflow.errors import BarflowError
from barflow.operations.checks import Check
from barflow.secrets import resolve
from barflow.settings import Settings
from barflow.twelvedata.http import Http, NoAnswerError, Refusal

KEY, CREDITS, CLOCK = "Twelve Data key", "credits", "clock"
TIMEOUT, DEADLINE = (5.0, 15.0), 20.0
# A bar counts as final five minutes after its open by this machine's clock.
MOST_SKEW_SECONDS = 30


def check_vendor(settings: Settings, clock: Callable[[], datetime]) -> Iterator[Check]:
    """Yield the checks that one call of /api_usage answers."""
    try:
        key = resolve(settings.twelvedata_api_key, "TWELVEDATA_API_KEY")
        http = Http(
            settings.twelvedata_url, SecretStr(key), timeout=TIMEOUT, deadline=DEADLINE, clock=clock, session=None
        )
        reply = http.get("/api_usage", {}, (), None)
    except BarflowError as error:
        yield Check(KEY, False, str(error), "correct the setting that the message names")
        return
    except NoAnswerError as error:
        fix = "check the network, its proxy, and BARFLOW_TWELVEDATA_URL"
        yield Check(KEY, False, f"{settings.twelvedata_url} gave no answer: {error}", fix)
        return
    if reply.refusal is None:
        yield Check(KEY, True, f"valid, plan {reply.body.get('plan_category', 'unknown')}")
        yield check_credits(reply.body, settings)
    else:
        yield _refused(reply.refusal)
    yield check_clock(reply.date, clock())


def _refused(refusal: Refusal) -> Check:
    if refusal.code != 429:
        return Check(KEY, False, f"refused: {refusal.message}", "copy TWELVEDATA_API_KEY again from Twelve Data")
    if refusal.is_for_day:
        return Check(CREDITS, False, f"none left today: {refusal.message}", "wait for the next day (UTC)")
    return Check(CREDITS, True, f"none left in this minute: {refusal.message}", "run it again in a minute")


def check_credits(usage: Mapping[str, Any], settings: Settings) -> Check:
    """Compare the credits of the plan with the settings, and check that some are left today."""
    minute, day, used = (usage.get(name) for name in ("plan_limit", "plan_daily_limit", "daily_usage"))
    left = max(0, day - used) if isinstance(day, int) and isinstance(used, int) else None
    today = "no daily limit" if left is None else f"{left} of {day} left today"
    found = f"{minute} a minute, {today}"
    if left == 0:
        return Check(CREDITS, False, found, "wait for the next day (UTC), or choose a larger plan")
    wrong = []
    if isinstance(minute, int) and settings.credits_per_minute > minute:
        wrong.append(f"BARFLOW_CREDITS_PER_MINUTE={minute}")
    if isinstance(day, int) and (settings.credits_per_day is None or settings.credits_per_day > day):
        wrong.append(f"BARFLOW_CREDITS_PER_DAY={day}")
    if wrong:
        return Check(CREDITS, False, f"{found}, which the settings exceed", f"set {' and '.join(wrong)}")
    unused = []
    if isinstance(minute, int) and settings.credits_per_minute < minute:
        unused.append(f"BARFLOW_CREDITS_PER_MINUTE={minute}")
    if settings.credits_per_day is not None and (day is None or settings.credits_per_day < day):
        unused.append(f"BARFLOW_CREDITS_PER_DAY={'' if day is None else day}")
    return Check(CREDITS, True, found, f"set {' and '.join(unused)} to use the whole plan" if unused else "")


def check_clock(date: str | None, now: datetime) -> Check:
    """Compare this machine's clock (UTC) with the Date header of an answer, which has whole seconds."""
    try:
        server = parsedate_to_datetime(date or "").replace(tzinfo=UTC)
    except ValueError:
        return Check(CLOCK, True, "not checked: the answer has no Date header", checked=False)
    skew = (now - server).total_seconds()
    found = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} Twelve Data's"
    fix = "set the clock by NTP: bars are stored too early or too late by that much"
    return Check(CLOCK, abs(skew) <= MOST_SKEW_SECONDS, found, "" if abs(skew) <= MOST_SKEW_SECONDS else fix)
