"""What do the emulator's programs run on? This machine: a folder for their files, the embedded services, and trouble.

Shared by who starts the emulator and by the emulator's own process. ``expect`` prepares a trouble and ``take`` meets
it, each once, through files in the folder, so that either may be in any process.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path

ACCOUNT, REGION = "123456789012", "us-east-1"
# What the access key of a deployed program begins with; its role's name follows.
ROLE_KEY = "role-"


class Trouble(Enum):
    """What the next program or cluster meets."""

    STEP_DIES = "the next Spark step is killed, as by a node that runs out of memory"
    JOB_DIES = "the next Glue job run is killed"
    JOB_TIMES_OUT = "the next Glue job run reaches its time limit"
    CLUSTER_STUCK = "the next cluster stays STARTING, as where there is no capacity"
    ANSWER_LATE = "the next cluster is made, and who asked for it hears of it later: `at` is by how many seconds"


@dataclass(frozen=True)
class Machine:
    """``warehouse_dsn`` is that of the embedded PostgreSQL's superuser, which has no password.

    ``settings`` go to every program and win over what was deployed: the addresses of those that stand in for parties
    outside AWS. ``minute`` is how many seconds a minute takes here that a cluster may be idle.
    """

    folder: Path
    warehouse_dsn: str
    settings: Mapping[str, str] = field(default_factory=dict)
    minute: float = 4.0

    @classmethod
    def from_json(cls, text: str) -> Machine:
        read = json.loads(text)
        return cls(Path(read["folder"]), read["warehouse_dsn"], read["settings"], read["minute"])

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder)})

    @property
    def judged(self) -> Counter[str]:
        """How many calls of programs were judged, by role."""
        return Counter(self._noted("judged"))

    @property
    def refused(self) -> list[str]:
        """The calls among them that the role did not allow, in order."""
        return self._noted("refused")

    def note(self, kind: str, line: str) -> None:
        """Notes a call that is ``judged``, by its role, or ``refused``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / kind).open("a") as notes:
            notes.write(f"{line}\n")

    def _noted(self, kind: str) -> list[str]:
        notes = self.folder / kind
        return notes.read_text().splitlines() if notes.exists() else []

    def expect(self, trouble: Trouble, at: str = "", times: int = 1) -> None:
        """Prepares a trouble for so many programs, at the moment that one says ``at``; its first word, where empty."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in range(times):
            (self.folder / f"{trouble.name}.{number}").write_text(at)

    def take(self, trouble: Trouble) -> str | None:
        """One prepared trouble's ``at``, which is then over; None where none is prepared."""
        for mark in sorted(self.folder.glob(f"{trouble.name}.[0-9]")):
            taken = mark.with_suffix(".taken")
            with suppress(FileNotFoundError):  # another program was quicker
                mark.rename(taken)
                return taken.read_text()
        return None

    def calm(self) -> None:
        """Forgets what is prepared and was not met."""
        for trouble in Trouble:
            while self.take(trouble) is not None:
                pass


def client_variables(url: str, role: str | None = None) -> dict[str, str]:
    """What points every AWS client at the emulator and away from every real account, as a role or as its owner."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": f"{ROLE_KEY}{role}" if role else "emulator",
        "AWS_SECRET_ACCESS_KEY": "emulator",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
