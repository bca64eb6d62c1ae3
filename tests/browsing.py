"""How does a test look at a page? In a real Chromium that lets nothing out: browse.mjs, run by the wheel's Node."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parent / "browser" / "browse.mjs"
# What the browser that the tests bring along runs on.
CAN_BROWSE = (sys.platform, platform.machine()) == ("linux", "x86_64")
NODE = Path(sys.executable).with_name("node")


@dataclass(frozen=True)
class Seen:
    """What the browser made of a page: complaints, requests that wanted to leave, and what the script returned."""

    errors: list[str]
    outside: list[str]
    value: Any


BrowserShot = Callable[..., Seen]


@contextmanager
def browser() -> Iterator[BrowserShot]:
    """Runs the browser and gives ``shot(page, …)``, which opens a file or a URL in a page of its own.

    The options are those of browse.mjs: ``run="return page.title()"``, ``width``, ``scheme``, ``screenshot``, …
    """
    with subprocess.Popen([NODE, SCRIPT], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as node:
        assert node.stdin is not None
        assert node.stdout is not None
        asked, answers = node.stdin, node.stdout

        def shot(page: Path | str, **options: object) -> Seen:
            url = page.resolve().as_uri() if isinstance(page, Path) else page
            asked.write(json.dumps({"url": url, **options}, default=str) + "\n")
            asked.flush()
            answer = json.loads(answers.readline() or '{"failed": "the browser ended"}')
            assert "failed" not in answer, answer["failed"]
            return Seen(**answer)

        yield shot
