"""The runtime of deployed programs: their folder, the embedded warehouse, their settings and injected faults.

The process that starts the emulator and the emulator's own process share it. Faults and records of API calls are files
in its folder, so that any process can write and read them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from emulators.aws.faults import Fault


@dataclass(frozen=True)
class Runtime:
    """What the emulator runs deployed programs with.

    ``warehouse_dsn`` is the DSN of the embedded PostgreSQL's superuser, which has no password. ``settings`` go to every
    program and win over the deployed variables: they are the addresses of the emulators outside AWS. ``idle_minute`` is
    how many seconds of an idle cluster count as one minute.
    """

    folder: Path
    warehouse_dsn: str
    settings: Mapping[str, str] = field(default_factory=dict)
    idle_minute: float = 4.0

    @classmethod
    def from_json(cls, text: str) -> Runtime:
        """Return the runtime that ``to_json`` wrote."""
        read = json.loads(text)
        return cls(Path(read["folder"]), read["warehouse_dsn"], read["settings"], read["idle_minute"])

    def to_json(self) -> str:
        """Return the runtime as JSON, for another process."""
        return json.dumps({**asdict(self), "folder": str(self.folder)})

    @property
    def authorities(self) -> Path:
        """The PEM file of the authority that signs the databases' certificates. Deploying a database writes it."""
        return self.folder / "rds_authorities.pem"

    @property
    def evaluated_calls(self) -> Counter[str]:
        """The number of API calls evaluated against policies, by role."""
        return Counter(self._recorded("evaluated"))

    @property
    def denied_calls(self) -> list[str]:
        """The messages of the calls that a policy did not allow, in order."""
        return self._recorded("denied")

    def record_evaluation(self, role: str) -> None:
        """Record that a call of the role was evaluated."""
        self._record("evaluated", role)

    def record_denial(self, message: str) -> None:
        """Record the message of a denied call."""
        self._record("denied", message)

    def inject(self, fault: Fault, at: str = "", times: int = 1) -> None:
        """Inject a fault into the next ``times`` programs.

        A program is killed when it prints a line that contains ``at``; if that is empty, when it prints its first line.
        Faults that nothing has met yet stay.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        left = [int(mark.suffix[1:]) for mark in self.folder.glob(f"{fault.name}.*[0-9]")]
        first = max(left, default=-1) + 1
        for number in range(first, first + times):
            (self.folder / f"{fault.name}.{number}").write_text(at)

    def take(self, fault: Fault, wanted: Callable[[str], bool] = lambda at: True) -> str | None:
        """Use up one injected fault whose ``at`` is wanted, and return that; return None if none is left."""
        for mark in sorted(self.folder.glob(f"{fault.name}.*[0-9]")):
            taken = mark.with_suffix(".taken")
            with suppress(FileNotFoundError):  # another program took it first
                if wanted(mark.read_text()):
                    mark.rename(taken)
                    return taken.read_text()
        return None

    def clear_faults(self) -> None:
        """Remove every injected fault that nothing has met."""
        for fault in Fault:
            while self.take(fault) is not None:
                pass

    def _record(self, kind: str, line: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / kind).open("a") as records:
            records.write(f"{line}\n")

    def _recorded(self, kind: str) -> list[str]:
        records = self.folder / kind
        return records.read_text().splitlines() if records.exists() else []


_in_use: list[Runtime] = []


def use(runtime: Runtime) -> None:
    """Make this the runtime of the process. The emulator's process calls it once, before it serves."""
    _in_use[:] = [runtime]


def take_fault(fault: Fault, wanted: Callable[[str], bool]) -> bool:
    """Use up one injected fault whose ``at`` is wanted. Return False if there is none, or no runtime."""
    return bool(_in_use) and _in_use[0].take(fault, wanted) is not None


def record_dropped(message: str) -> None:
    """Record a message that a service could not deliver, with the denied calls; do nothing without a runtime."""
    if _in_use:
        _in_use[0].record_denial(message)


def current() -> Runtime:
    """Return the runtime of this process. Raise RuntimeError if it has none."""
    if not _in_use:
        raise RuntimeError("this process has no runtime: call emulators.aws.runtime.use first")
    return _in_use[0]
