"""Files of manifests: one per slice of a run, and one per day for old manifests that a load has consumed.

``{lake}/manifests/RUN_ID.json`` may wait for its load. ``{lake}/manifests/days/20250702.jsonl.gz`` holds the consumed
manifests of runs that started on that day (UTC), one per line. So the list of a plan does not grow with the age of the
archive, and every manifest can still be read.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from pyarrow import fs

from barflow.errors import BarflowError
from barflow.lake.manifests import Manifest, run_of

if TYPE_CHECKING:
    from barflow.lake.partitions import Lake

# A run id that a person chose has no time. Its manifest stays its own file.
TIMED = re.compile(r"\d{8}T\d{6}Z-.")
LONGEST_RUN = timedelta(days=1)
DAYS = "manifests/days"
SUFFIX = ".jsonl.gz"


def compact(lake: Lake, consumed: Callable[[Sequence[str]], set[str]], before: datetime) -> int:
    """Move the consumed manifests of runs that started before a day (UTC) into the files of their days.

    ``consumed`` returns the given run ids that a load has consumed. The newest manifest stays. Return how many moved. A
    manifest is removed after its day's file holds it, so a reader always finds it. Only one call may run at a time.
    """
    old = [run_id for run_id in lake.manifest_ids()[:-1] if TIMED.match(run_id) and run_id[:8] < f"{before:%Y%m%d}"]
    done = consumed(old) if old else set()
    moved = 0
    for day, ids in groupby((run_id for run_id in old if run_id in done), key=lambda run_id: run_id[:8]):
        lines = {_id(line): line for line in _lines(lake, day)}
        added = list(ids)
        for run_id in added:
            path = f"{lake.root}/manifests/{run_id}.json"
            with lake.files.open_input_stream(path) as stream:
                lines[run_id] = json.dumps({"run_id": run_id, **json.loads(stream.read())}).encode() + b"\n"
        lake.write(_path(lake, day), gzip.compress(b"".join(lines[run_id] for run_id in sorted(lines)), 6, mtime=0))
        for run_id in added:
            lake.files.delete_file(f"{lake.root}/manifests/{run_id}.json")
        moved += len(added)
    return moved


def find_compacted(lake: Lake, run_id: str) -> Manifest | None:
    """Return a manifest that the file of its day holds, or None. Raise BarflowError for a damaged file."""
    if not TIMED.match(run_id):
        return None
    return next((Manifest.from_json(line) for line in _lines(lake, run_id[:8]) if _id(line) == run_id), None)


def ids_until(lake: Lake, moment: datetime, runs: int) -> list[str]:
    """Return the ids of the manifests of the last runs that started by a moment (UTC), oldest first.

    They are of so many runs, or of fewer if there are not as many.
    """
    last = f"{moment:%Y%m%dT%H%M%SZ}~"  # a run id starts with its second
    found = {run_id for run_id in lake.manifest_ids() if run_id <= last}
    for day in reversed([day for day in _days(lake) if day <= last[:8]]):
        newest = _newest_runs(found, runs)
        if len(newest) == runs and newest[0][:8] > day:
            break
        found |= {run_id for line in _lines(lake, day) if (run_id := _id(line)) <= last}
    newest = _newest_runs(found, runs)
    return sorted(run_id for run_id in found if run_of(run_id) in newest)


def _newest_runs(ids: Iterable[str], count: int) -> list[str]:
    """Return the newest runs of manifests, oldest first."""
    return sorted({run_of(run_id) for run_id in ids})[-count:]


def manifests_since(lake: Lake, moment: datetime | None) -> Iterator[Manifest]:
    """Yield the manifests that were published after a moment (UTC), or all of them."""
    first = f"{moment - LONGEST_RUN:%Y%m%d}" if moment else ""
    ids = (run_id for run_id in lake.manifest_ids() if run_id >= first or not TIMED.match(run_id))
    recent: Iterable[Manifest] = map(lake.manifest, ids)
    days = (day for day in _days(lake) if day >= first)
    older = (Manifest.from_json(line) for day in days for line in _lines(lake, day))
    for manifest in (item for group in (older, recent) for item in group):
        if moment is None or manifest.created_at > moment:
            yield manifest


def _path(lake: Lake, day: str) -> str:
    return f"{lake.root}/{DAYS}/{day}{SUFFIX}"


def _days(lake: Lake) -> list[str]:
    """Return the days (20250702) that have a file, sorted."""
    found = lake.files.get_file_info(fs.FileSelector(f"{lake.root}/{DAYS}", allow_not_found=True))
    names = (Path(info.path).name for info in found)
    return sorted(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))


def _lines(lake: Lake, day: str) -> Iterator[bytes]:
    """Yield the manifests of a day's file, or nothing without a file. Raise BarflowError if it is damaged."""
    path = _path(lake, day)
    if lake.files.get_file_info(path).type != fs.FileType.File:
        return
    try:
        with lake.files.open_input_file(path) as stream, gzip.open(io.BufferedReader(stream)) as lines:
            yield from lines
    except (OSError, EOFError, zlib.error) as error:
        raise BarflowError(
            f"{path} cannot be read: {error}. Nothing was changed. Restore its previous version."
        ) from None


def _id(line: bytes) -> str:
    """Return the run id of a line, which starts with it."""
    return line[len('{"run_id": "') :].split(b'"', 1)[0].decode()
