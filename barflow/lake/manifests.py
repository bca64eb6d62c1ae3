"""Manifests: what a process run published, one per slice. A manifest is written last, so its data is in the lake."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any

from barflow.market.vendor_days import VendorDay


@dataclass(frozen=True)
class Partition:
    """One (symbol, month) that a run wrote.

    ``rows`` counts the whole file, ``history`` that of the superseded versions. ``versions`` maps each session that
    changed in it to the version of the staged document that was written.
    """

    symbol: str
    month: str
    rows: int
    versions: dict[str, int] = field(default_factory=dict)
    history: int = 0

    @property
    def sessions(self) -> list[str]:
        """Return the dates of the sessions that changed, as ISO text, sorted."""
        return sorted(self.versions)


@dataclass(frozen=True)
class ActionsFile:
    """One symbol's file of corporate actions that a run wrote: the staged document's version, and the file's rows."""

    symbol: str
    version: int
    rows: int


@dataclass(frozen=True)
class Manifest:
    """What one process run published, or one slice of it. The manifest itself holds the vendor's daily bars.

    ``run_id`` is the manifest's id: the run's, or the run's with the number of the slice. ``complete_until`` (UTC): the
    lake then holds every answer that was asked for before. Only the last slice of a run changes it.
    """

    run_id: str
    created_at: datetime
    partitions: tuple[Partition, ...]
    actions: tuple[ActionsFile, ...] = ()
    vendor_days: tuple[VendorDay, ...] = ()
    complete_until: datetime | None = None

    @property
    def rows(self) -> int:
        """Return the rows of all files that the run wrote."""
        return sum(partition.rows for partition in self.partitions)

    @property
    def symbols(self) -> frozenset[str]:
        """Return the symbols for which something was published."""
        names = {item.symbol for item in self.partitions} | {item.symbol for item in self.actions}
        return frozenset(names | {item.symbol for item in self.vendor_days})

    def to_json(self) -> bytes:
        """Return the manifest as the JSON text of its file."""
        partitions = [{**asdict(item), "sessions": item.sessions} for item in self.partitions]
        body = {
            "run_id": self.run_id,
            "created_at": self.created_at.isoformat(),
            "complete_until": self.complete_until.isoformat() if self.complete_until else None,
            "partitions": partitions,
            "rows": self.rows,
            "actions": [asdict(item) for item in self.actions],
            "vendor_days": [
                {
                    **asdict(item),
                    "session_date": item.session_date.isoformat(),
                    "requested_at": item.requested_at.isoformat(),
                }
                for item in self.vendor_days
            ],
        }
        return json.dumps(body, indent=1).encode()

    @classmethod
    def from_json(cls, body: bytes) -> Manifest:
        """Parse a manifest's file. Raises ValueError, KeyError or TypeError if it is damaged.

        Manifests of earlier releases have no actions, no daily bars, no history and no complete_until.
        """
        read: dict[str, Any] = json.loads(body)
        partitions = tuple(
            Partition(
                item["symbol"],
                item["month"],
                item["rows"],
                item.get("versions") or dict.fromkeys(item["sessions"], 0),
                item.get("history", 0),
            )
            for item in read["partitions"]
        )
        actions = tuple(ActionsFile(**item) for item in read.get("actions", ()))
        vendor_days = tuple(_vendor_day(item) for item in read.get("vendor_days", ()))
        until = read.get("complete_until")
        return cls(
            read["run_id"],
            datetime.fromisoformat(read["created_at"]),
            partitions,
            actions,
            vendor_days,
            datetime.fromisoformat(until) if until else None,
        )


def manifest_id(run_id: str, number: int) -> str:
    """Return the manifest id of a run's slice, numbered from 1. The ids of a run sort by number."""
    return f"{run_id}-{number:04}"


def run_of(manifest_id: str) -> str:
    """Return the id of the run that published a manifest. The manifest of a run without slices has the run's id."""
    return re.sub(r"-[0-9]{4}$", "", manifest_id)


def _vendor_day(item: dict[str, Any]) -> VendorDay:
    moments = {
        "session_date": date.fromisoformat(item["session_date"]),
        "requested_at": datetime.fromisoformat(item["requested_at"]),
    }
    return VendorDay(**{**item, **moments})
