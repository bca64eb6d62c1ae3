"""What does a channel send? One versioned message for all of them; docs/alert-message.schema.json is made from it."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from barflow.alerts.evaluate import Event
from barflow.alerts.rules import (
    AverageRule,
    ExtremeRule,
    GapRule,
    LevelRule,
    MoveRule,
    Severity,
    SilenceRule,
    VolumeRule,
)
from barflow.market.validation import likely_split


class Message(BaseModel):
    """One alert. An id that was seen before is the same alert again: delivery is at least once."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="Barflow alert")

    schema_version: Literal[1] = Field(1, description="raised when a field changes its meaning or goes away")
    id: str = Field(description="stable: rule|symbol|bar, such as gap_5pct|TSLA|2025-07-07T13:30:00Z")
    rule: str = Field(description="the rule's id")
    kind: Literal["level", "move", "gap", "volume", "average", "extreme", "silence"]
    symbol: str
    severity: Severity
    session_date: date = Field(description="exchange-local trading day")
    bar_start: datetime = Field(description="the bar's open, UTC; of a silence, that of the first missing bar")
    direction: Literal["up", "down"] | None = Field(description="null for a silence")
    value: float = Field(description="what was found, in unit")
    unit: Literal["dollars", "percent", "times", "minutes"]
    reference: float | None = Field(
        description="what it was measured against: dollars, of a volume shares, of a silence null"
    )
    price: float = Field(description="the bar's close, of a silence the last one before it, dollars")
    text: str = Field(description="the same in words")
    created_at: datetime = Field(description="when it was noticed, UTC")

    @classmethod
    def of(cls, event: Event, created_at: datetime) -> Message:
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
            text=in_words(event),
            created_at=created_at,
        )


def in_words(event: Event) -> str:
    """One sentence for a person, such as ``TSLA opened 7.57 % below the previous close of 315.22``."""
    rule, symbol, up = event.rule, event.symbol, event.direction == "up"
    rose, above = ("rose", "above") if up else ("fell", "below")
    at, against = f"{event.price:,.2f}", f"{event.reference or 0:,.2f}"
    match rule:
        case LevelRule():
            return f"{symbol} {rose} to {at}, through {against}"
        case MoveRule():
            return f"{symbol} {rose} {abs(event.value):.2f} % within {rule.minutes} min, from {against} to {at}"
        case GapRule():
            split = likely_split(1 + event.value / 100)
            note = f"; that looks like a {split} split" if split else ""
            return f"{symbol} opened {abs(event.value):.2f} % {above} the previous close of {against}{note}"
        case VolumeRule():
            usual = f"{event.reference or 0:,.0f} shares"
            return f"{symbol} traded {event.value:.1f} times its usual volume for the time of day ({usual})"
        case AverageRule():
            window = f"{rule.bars}-bar" if rule.bars else f"{rule.sessions}-session"
            return f"{symbol} {rose} to {at}, through its {window} average of {against}"
        case ExtremeRule():
            bound = "high" if up else "low"
            return f"{symbol} reached {event.value:,.2f}, {above} its {rule.sessions}-session {bound} of {against}"
        case SilenceRule():
            return f"{symbol} has had no bar for {event.value:.0f} min of the open session; its last close was {at}"


def schema() -> dict[str, Any]:
    """The message's JSON schema, as kept in docs."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Message.model_json_schema(mode="serialization"),
    }


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
