"""The state folder: the data of one embedded pipeline (databases, lake) and the source of its bars.

STATE/state.json   {"format": 1, "source": {"kind": "synthetic" | "replay" | "live", …}, "as_of": moment or null,
                    "script": the splits and dividends of a synthetic market, or null}
STATE/mongo/  STATE/postgres/  STATE/lake/  STATE/logs/  STATE/report.html
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from barflow.errors import BadInputError, BarflowError
from emulators.twelvedata.script import NO_SCRIPT, MarketScript

FORMAT = 1
UNFINISHED = ".state.json"
NEXT_STEP = "Nothing in it was changed. Pass another folder with --state, or move this one away."


@dataclass(frozen=True)
class State:
    """An opened state folder. ``as_of`` is the clock of a replay (UTC), which does not move, else None.

    The state keeps the script of its synthetic market, so that every run sees the same raw bars.
    """

    path: Path
    source: dict[str, Any]
    as_of: datetime | None
    script: MarketScript = NO_SCRIPT

    @property
    def lake(self) -> Path:
        """Return the folder of the Parquet lake."""
        return self.path / "lake"

    @classmethod
    def source_at(cls, path: Path) -> dict[str, Any] | None:
        """Return the source of a folder's bars, or None if there is no state yet.

        Raises:
            BadInputError: The folder is not a state, is damaged, or has another format.
        """
        return cls.open(path).source if _is_taken(path) else None

    @classmethod
    def open(cls, path: Path) -> State:
        """Open an existing state. Raise BadInputError when the folder holds none that this version can read."""
        path = path.resolve()
        try:
            found = json.loads((path / "state.json").read_text())
            version, source, as_of = found["format"], dict(found["source"]), found["as_of"]
            moment = datetime.fromisoformat(as_of) if as_of else None
            if moment is not None and moment.tzinfo is None:
                raise ValueError(as_of)
            script = MarketScript.from_json(found["script"]) if found.get("script") else NO_SCRIPT
        except FileNotFoundError:
            raise BadInputError(f"{path} is not a Barflow state: it has no state.json. {NEXT_STEP}") from None
        except OSError as error:
            raise BadInputError(f"{path} cannot be read: {error.strerror}. {NEXT_STEP}") from None
        except (AttributeError, ValueError, KeyError, TypeError):
            raise BadInputError(f"{path / 'state.json'} is damaged. {NEXT_STEP}") from None
        if version != FORMAT:
            raise BadInputError(f"{path} has format {version}; this version of Barflow reads {FORMAT}. {NEXT_STEP}")
        return cls(path, source, moment, script)

    @classmethod
    def create(
        cls, path: Path, *, source: dict[str, Any], as_of: datetime | None, script: MarketScript = NO_SCRIPT
    ) -> State:
        """Open the state, or make it with this script if there is none.

        Raises:
            BadInputError: It has another source.
        """
        if not _is_taken(path):
            body = {"format": FORMAT, "source": source, "as_of": as_of.isoformat() if as_of else None}
            _write(path.resolve(), {**body, "script": script.to_json()} if script != NO_SCRIPT else body)
        state = cls.open(path)
        if state.source != source:
            raise BadInputError(f"{path} holds {state.source.get('kind')} bars. {NEXT_STEP}")
        if state.as_of and as_of and as_of > state.as_of:  # the recording has got newer bars
            _write(state.path, {"format": FORMAT, "source": source, "as_of": as_of.isoformat()})
            return cls.open(path)
        return state


def _write(path: Path, body: dict[str, Any]) -> None:
    """Make the folder. It becomes a state when state.json, complete, is renamed into place."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in ("lake", "logs"):
            (path / part).mkdir(mode=0o700, exist_ok=True)
        unfinished = path / UNFINISHED
        unfinished.write_text(json.dumps(body, indent=1) + "\n")
        unfinished.replace(path / "state.json")
    except OSError as error:
        raise BarflowError(
            f"the state folder {path} cannot be written: {error.strerror}. "
            "Free space or fix its permissions, or pass another folder with --state."
        ) from None


def _is_taken(path: Path) -> bool:
    """Return whether the folder holds anything but other sources' states and the remains of a killed creation."""
    if path.is_file():
        raise BadInputError(f"{path} is a file, not a folder. Pass a folder with --state.")
    try:
        return path.is_dir() and any(not _is_ignored(item) for item in path.iterdir())
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}. {NEXT_STEP}") from None


def _is_ignored(item: Path) -> bool:
    empty = item.name in ("lake", "logs") and item.is_dir() and not any(item.iterdir())
    return item.name in ("states", UNFINISHED) or empty
