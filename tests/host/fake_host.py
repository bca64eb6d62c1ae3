"""Fake host: a folder in which bootstrap.sh sets up the release, with fakes of the commands that need root or AWS.

One script is the fake of every such command. It records the calls and remembers their effect for a second run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stacks.bundles import RELEASE

ROOT = Path(__file__).parents[2]
HOST = ROOT / "orchestration" / "host"
FAKE = r"""#!/usr/bin/env bash
set -eu
name=${0##*/} done=$BARFLOW_ROOT/../done
echo "$name $*" >>"$BARFLOW_ROOT/../calls"
mkdir -p "$done"
case "$name $*" in
  "mountpoint "*) test -e "$done/mounted" ;;
  "mount "*) touch "$done/mounted" ;;
  "blkid "*) test -e "$done/formatted" ;;
  "mkfs.xfs "*) test ! -e "$done/formatted" && touch "$done/formatted" ;;
  "swapon --show"*) cat "$done/swap" 2>/dev/null || true ;;
  "swapon "*) echo "$1" >"$done/swap" ;;
  "dd "*) for word in "$@"; do case $word in of=*) : >"${word#of=}" ;; esac; done ;;
  "rpm "*) test -e "$done/packages" ;;
  "dnf install "*)
    touch "$done/packages"
    mkdir -p "$BARFLOW_ROOT/opt/aws/amazon-cloudwatch-agent/bin"
    ln -sf "$0" "$BARFLOW_ROOT/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl"
    ;;
  "getent passwd "*) test -e "$done/user-$2" ;;
  "useradd "*) touch "$done/user-${*: -1}" ;;
  "chown "*) echo "${1%:*}" >"$done/owner-${2##*/}" ;;
  "stat "*) cat "$done/owner-$(basename "${*: -1}")" 2>/dev/null || echo root ;;
  "systemctl restart barflow-settings.service")
    mkdir -p "$BARFLOW_ROOT/run/barflow"
    touch "$BARFLOW_ROOT/run/barflow/barflow.env"
    ;;
  "python3.11 -m venv "*)
    mkdir -p "$3/bin" "$3/lib/python3.11/site-packages"
    for each in python uv airflow; do ln -sf "$0" "$3/bin/$each"; done
    ;;
esac
"""
COMMANDS = (
    *("mountpoint", "mount", "blkid", "mkfs.xfs", "swapon", "mkswap", "dd", "rpm", "dnf", "getent", "useradd"),
    *("chown", "stat", "systemctl"),
)


@dataclass
class FakeHost:
    """A host below ``folder``: ``root`` is its file system, ``faked`` are the commands that the script replaces."""

    folder: Path
    faked: tuple[str, ...] = (*COMMANDS, "python3.11")
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.root / "etc/ssh").mkdir(parents=True)
        host_key = self.root / "etc/ssh/ssh_host_ed25519_key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host_key], check=True)
        (self.root / "etc/fstab").touch()
        shutil.copytree(RELEASE.build() / "release", self.release)
        (self.folder / "bin").mkdir()
        fake = self.folder / "bin" / "fake"
        fake.write_text(FAKE)
        fake.chmod(0o755)
        for name in self.faked:
            (self.folder / "bin" / name).symlink_to(fake)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def release(self) -> Path:
        return self.root / "opt/barflow/release"

    @property
    def environment(self) -> dict[str, str]:
        # pip and uv need this machine's settings; AWS accounts and barflow's settings are the test's.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "BARFLOW_"))}
        return kept | {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "BARFLOW_ROOT": str(self.root),
            "BARFLOW_ENV": "dev",
            "BARFLOW_HOST_LOG": "barflow-dev-host",
            "AWS_DEFAULT_REGION": "us-east-1",
            **self.settings,
        }

    def boot(self) -> list[str]:
        """Run the setup, which must succeed. Return the calls of the faked commands."""
        (self.folder / "calls").unlink(missing_ok=True)
        script = self.release / "orchestration/host/bootstrap.sh"
        done = subprocess.run(["bash", script], env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return (self.folder / "calls").read_text().replace(str(self.root), "").splitlines()

    def files(self) -> dict[str, tuple[int, str]]:
        """Return the modification time and digest of every file, by path."""
        return {
            str(path.relative_to(self.root)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
            for path in sorted(self.root.rglob("*"))
            if path.is_file()
        }

    def text(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text()
