"""The command `barflow dashboard`: serve the analysts' page on the stores of the settings or of a state folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from barflow.cli.common import State, log, opened
from barflow.cli.rooms import command_app
from barflow.secrets import resolve
from barflow.settings import load_settings

if TYPE_CHECKING:
    from barflow.pipeline.stores import Stores

LOOPBACK = "127.0.0.1"

dashboard = command_app()


@dashboard.command("dashboard", epilog="Example:  barflow dashboard --port 8080")
def serve(
    state: State = None,
    host: Annotated[str, typer.Option(help="Address to serve on; any but loopback needs a token.")] = LOOPBACK,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8050,
) -> None:
    """Serve the analysts' page until Ctrl-C.

    It shows the watch list, charts, alerts and health as ticks arrive, and only reads. Visitors sign in with
    BARFLOW_DASHBOARD_TOKEN (a token, or secretsmanager:NAME). On loopback the token is optional.
    """
    from dashboard.security import checked_token

    checked_token(_token(), host)  # before anything is started
    with opened(state) as stores, page_of(stores, host=host, port=port) as url:
        log(f"the page is at {url}  Ctrl-C stops it")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


@contextmanager
def page_of(stores: Stores, *, host: str = LOOPBACK, port: int = 0) -> Iterator[str]:
    """Serve the page on a run's stores and clock. Yield its URL."""
    from barflow.lake.partitions import Lake
    from dashboard.app import create_app
    from dashboard.security import checked_token
    from dashboard.server import serving

    lake = Lake(stores.settings.lake_uri) if stores.settings.lake_uri else None
    token = checked_token(_token(), host)
    app = create_app(stores.database, stores.reader_dsn, lake=lake, token=token, clock=stores.clock)
    with serving(app, host, port) as url:
        yield url


def _token() -> str | None:
    setting = load_settings().dashboard_token
    return resolve(setting, "BARFLOW_DASHBOARD_TOKEN") if setting else None
