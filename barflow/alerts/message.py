"""The message of an alert: one versioned format for all channels. docs/alert-message.schema.json is made from it."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from barflow.alerts.evaluate import Event
from barflow.alerts.rules import (
    ALL,
    AverageRule,
    ExpressionRule,
    ExtremeRule,
    GapRule,
    LevelRule,
    MoveRule,
    Severity,
    SilenceRule,
    SplitRule,
    VolumeRule,
)
from barflow.market.actions import split_text, suspected_ratio
from barflow.market.sessions import new_york

Kind = Literal["level", "move", "gap", "split", "volume", "average", "extreme", "silence", "expression", "test"]


class Message(BaseModel):
    """One alert. Delivery is at least once, so a message with a known id is the same alert again."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="Barflow alert")

    schema_version: Literal[1] = Field(1, description="raised when a field changes its meaning or is removed")
    id: str = Field(description="stable: rule|symbol|bar, such as gap_5pct|TSLA|2025-07-07T13:30:00Z")
    rule: str = Field(description="the rule's id")
    kind: Kind = Field(description="the rule's; test: a message of `barflow alerts test-channel`, which no bar fired")
    symbol: str = Field(description="the symbol, or * for the feed (a silence of most symbols) and for a test")
    severity: Severity
    session_date: date = Field(description="exchange-local trading day")
    bar_start: datetime = Field(description="the bar's open, UTC; for a silence, that of the first missing bar")
    direction: Literal["up", "down"] | None = Field(description="null for a silence and an expression")
    value: float = Field(description="what the rule found, in unit")
    unit: Literal["dollars", "percent", "times", "minutes"]
    reference: float | None = Field(
        description="what value is compared with: dollars, shares for a volume, null for a silence and an "
        "expression; in the shares of session_date, also if it is older than a split"
    )
    price: float | None = Field(
        description="the bar's close, or the last close before a silence, in dollars; null for the feed"
    )
    text: str = Field(description="the alert as a sentence")
    created_at: datetime = Field(description="when the alert was found, UTC")

    @classmethod
    def of(cls, event: Event, created_at: datetime) -> Message:
        """Return the message of an event that was found at ``created_at`` (UTC)."""
        rule = event.rule
        return cls(
            schema_version=1,
            id=event.id,
            rule=rule.id,
            kind=rule.kind,
            symbol=event.symbol,
            severity=rule.severity,
            session_date=event.session_date,
            bar_start=event.bar_start,
            direction="up" if event.direction == "up" else "down" if event.direction else None,
            value=event.value,
            unit=rule.unit,
            reference=event.reference,
            price=event.price,
            text=describe(event),
            created_at=created_at,
        )


def describe(event: Event) -> str:
    """Return the event as a sentence, such as ``TSLA opened 7.57 % below the previous close of 315.22``."""
    rule, symbol, up = event.rule, event.symbol, event.direction == "up"
    rose, above = ("rose", "above") if up else ("fell", "below")
    reference = event.reference or 0
    at, against = f"{event.price or 0:,.2f}", f"{reference:,.2f}"
    match rule:
        case LevelRule():
            old = f" ({rule.level:,.2f} in the shares of {rule.as_of})" if event.reference != rule.level else ""
            return f"{symbol} {rose} to {at}, through {against}{old}"
        case MoveRule():
            return f"{symbol} {rose} {abs(event.value):.2f} % within {rule.minutes} min, from {against} to {at}"
        case GapRule():
            text = f"{symbol} opened {abs(event.value):.2f} % {above} the previous close of {against}"
            if event.split == 1:
                return text
            return f"{text} ({reference * event.split:,.2f} before a {split_text(event.split)})"
        case SplitRule():
            ratio = suspected_ratio(1.0, 1 + event.value / 100)
            like = split_text(ratio) if ratio else "split"
            return (
                f"{symbol} opened {abs(event.value):.2f} % {above} the previous close of {against}, like a {like} that "
                "is not known; no other rule compares this session with earlier ones"
            )
        case VolumeRule():
            usual = f"{reference:,.0f} shares"
            return f"{symbol} traded {event.value:.1f} times its usual volume for the time of day ({usual})"
        case AverageRule():
            window = f"{rule.bars}-bar" if rule.bars else f"{rule.sessions}-session"
            return f"{symbol} {rose} to {at}, through its {window} average of {against}"
        case ExtremeRule():
            bound = "high" if up else "low"
            return f"{symbol} reached {event.value:,.2f}, {above} its {rule.sessions}-session {bound} of {against}"
        case ExpressionRule():
            return f"{symbol} at {at}: {' '.join(rule.when.split())}"
        case SilenceRule() if symbol == ALL:
            return f"the feed has had no bar of most symbols for {event.value:.0f} min of the open session"
        case SilenceRule():
            return f"{symbol} has had no bar for {event.value:.0f} min of the open session; its last close was {at}"


def trial(environment: str, now: datetime) -> Message:
    """Return the message that tests a channel at a moment (UTC). No bot trades on it: its kind is ``test``."""
    now = now.replace(microsecond=0)
    return Message(
        schema_version=1,
        id=f"test|{ALL}|{now:%Y-%m-%dT%H:%M:%SZ}",
        rule="test",
        kind="test",
        symbol=ALL,
        severity="info",
        session_date=new_york(now).date(),
        bar_start=now,
        direction=None,
        value=0,
        unit="times",
        reference=None,
        price=None,
        text=f"Test message of the environment {environment}. No bar fired it.",
        created_at=now,
    )


def schema() -> dict[str, Any]:
    """Return the message's JSON schema, as it is in docs/."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Message.model_json_schema(mode="serialization"),
    }


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
