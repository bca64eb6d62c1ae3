"""Folders that no other user of this machine can enter: state folders, and the folder of PostgreSQL's socket."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from barflow.errors import BarflowError
from barflow.progress import Log

# The parts of a state folder that its owner alone reads. PostgreSQL closes its own folder.
PARTS = ("lake", "logs", "mongo")
# For root, PostgreSQL runs as another user. The group of that user may pass through the state folder.
STATE_MODE = 0o710 if os.geteuid() == 0 else 0o700


@contextmanager
def opened_folder(folder: Path, *users: int) -> Iterator[int | None]:
    """Yield a descriptor of a folder of this user or of ``users``. Yield None for a link or a folder of another user.

    Changes through the descriptor reach the folder that was checked, also if another user replaces it by a link.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield None
        return
    try:
        yield descriptor if os.fstat(descriptor).st_uid in (os.geteuid(), *users) else None
    finally:
        os.close(descriptor)


def close_to_others(state: Path, log: Log) -> None:
    """Take a state folder and its parts from the other users of this machine, and log it if one was open.

    Raises BarflowError for a part that is a link, and for a folder of another user.
    """
    changed = [_close(state, STATE_MODE), *(_close(state / part, 0o700) for part in PARTS)]
    if any(changed):
        log(f"{state} was open to other users of this machine; now only its owner can read it")


def _close(folder: Path, allowed: int) -> bool:
    """Remove the permissions of a folder that are not allowed. Return whether there were any."""
    if not (folder.is_symlink() or folder.is_dir()):
        return False
    with opened_folder(folder) as descriptor:
        if descriptor is None:
            raise BarflowError(
                f"{folder} is a link, or another user of this machine owns it. Nothing was started. "
                "Replace it by a folder of your own, or pass another folder with --state."
            )
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & ~allowed:
            os.fchmod(descriptor, mode & allowed)
            return True
    return False


def let_group_pass(folder: Path, group: int) -> None:
    """Let a group pass through a folder and all folders above it, without a permission to list them.

    Where a folder gives its group nothing, the group becomes the folder's. Else everyone may pass.
    """
    for item in (folder, *folder.parents):
        found = item.stat()
        mode = stat.S_IMODE(found.st_mode)
        if mode & 0o001 or (found.st_gid == group and mode & 0o010):
            continue
        if mode & 0o070:
            item.chmod(mode | 0o001)
        else:
            os.chown(item, -1, group, follow_symlinks=False)
            item.chmod(mode | 0o010)
