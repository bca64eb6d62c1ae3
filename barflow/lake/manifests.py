"""Manifests: what a process run published. A manifest is written last, so it means that the data is there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Partition:
    """One (symbol, month) that a run wrote.

    ``rows`` counts the whole file. ``versions`` maps each session that changed in it to the version of the staged
    document that was written.
    """

    symbol: str
    month: str
    rows: int
    versions: dict[str, int] = field(default_factory=dict)

    @property
    def sessions(self) -> list[str]:
        """Return the dates of the sessions that changed, as ISO text, sorted."""
        return sorted(self.versions)


@dataclass(frozen=True)
class Manifest:
    """What one process run published."""

    run_id: str
    created_at: datetime
    partitions: tuple[Partition, ...]

    @property
    def rows(self) -> int:
        """Return the rows of all files that the run wrote."""
        return sum(partition.rows for partition in self.partitions)

    def to_json(self) -> bytes:
        """Return the manifest as the JSON text of its file."""
        partitions = [{**asdict(item), "sessions": item.sessions} for item in self.partitions]
        body = {
            "run_id": self.run_id,
            "created_at": self.created_at.isoformat(),
            "partitions": partitions,
            "rows": self.rows,
        }
        return json.dumps(body, indent=1).encode()

    @classmethod
    def from_json(cls, body: bytes) -> Manifest:
        """Parse a manifest's file. Raises ValueError or KeyError if it is damaged."""
        read: dict[str, Any] = json.loads(body)
        partitions = tuple(
            Partition(
                item["symbol"],
                item["month"],
                item["rows"],
                item.get("versions") or dict.fromkeys(item["sessions"], 0),
            )
            for item in read["partitions"]
        )
        return cls(read["run_id"], datetime.fromisoformat(read["created_at"]), partitions)
