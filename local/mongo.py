"""The embedded MongoDB: SecantusDB, in its own process on a free loopback port."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pymongo
from pymongo.errors import PyMongoError

from barflow.pipeline.environment import own_environment
from barflow.progress import Log
from local.starting import Watch, did_not_start, free_port

START_SECONDS = 120.0


def start_mongo(state: Path, watch: Watch, log: Log) -> str:
    """Start MongoDB on STATE/mongo and return its URI. Raise BarflowError when it does not start.

    ``watch`` gets the process and the signal that stops it.
    """
    started = time.monotonic()
    log_file = state / "logs" / "mongo.log"
    port = free_port()
    # Without --sync-on-commit, a killed server loses writes that it acknowledged.
    command = [sys.executable, "-m", "secantus", "--host", "127.0.0.1", "--port", str(port), "--sync-on-commit"]
    command += ["--storage-path", str(state / "mongo"), "--log-level", "WARNING"]
    with log_file.open("ab") as output:
        server = subprocess.Popen(
            command,
            env=own_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    watch(server, signal.SIGTERM)
    uri = f"mongodb://127.0.0.1:{port}/"
    client: pymongo.MongoClient[dict[str, object]] = pymongo.MongoClient(uri, serverSelectionTimeoutMS=250)
    with client:
        while True:
            try:
                client.admin.command("ping")
                break
            except PyMongoError:
                if server.poll() is not None or time.monotonic() - started > START_SECONDS:
                    raise did_not_start("MongoDB", log_file) from None
    log(f"MongoDB ready in {time.monotonic() - started:.1f} s")
    return uri
