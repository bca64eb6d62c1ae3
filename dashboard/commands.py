"""The command `barflow dashboard`: serve the analysts' page on the stores of the settings or of a state folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from barflow.cli.common import State, log, opened
from barflow.cli.rooms import command_app
from barflow.errors import BadInputError
from barflow.secrets import resolve
from barflow.settings import Settings, load_settings

if TYPE_CHECKING:
    from barflow.pipeline.stores import Stores
    from dashboard.server import Server

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

    settings = load_settings()
    checked_token(_token(settings), host, settings.page_url, settings.page_proxies)  # before anything is started
    with opened(state) as stores, serving_page(stores, host=host, port=port) as server:
        log(f"the page is at {server.url}  Ctrl-C stops it")
        with suppress(KeyboardInterrupt):
            server.wait()


@contextmanager
def page_of(stores: Stores, *, port: int = 0) -> Iterator[str]:
    """Serve the page on a run's stores and clock, for this host. Yield its URL."""
    with serving_page(stores, host=LOOPBACK, port=port) as server:
        yield server.url


@contextmanager
def serving_page(stores: Stores, *, host: str, port: int) -> Iterator[Server]:
    """Serve the page on a run's stores and clock. Yield its server."""
    from barflow.lake.partitions import Lake
    from dashboard.app import create_app
    from dashboard.security import checked_token
    from dashboard.server import serving

    settings = load_settings()
    url, proxies = settings.page_url, settings.page_proxies
    lake = Lake(stores.settings.lake_uri) if stores.settings.lake_uri else None
    token = checked_token(_token(settings), host, url, proxies)
    app = create_app(
        stores.database,
        stores.reader_dsn,
        lake=lake,
        instruments=stores.instruments,
        lists=_lists(settings),
        token=token,
        url=url,
        clock=stores.clock,
        thresholds=settings.vendor_day_thresholds,
    )
    with serving(app, host, port, url=url, proxies=proxies) as server:
        yield server


def _lists(settings: Settings) -> Mapping[str, Sequence[str]]:
    """Return the lists of the rules file. A mistake in the file is logged, and the page has no lists."""
    from barflow.alerts.rules_file import load_rules

    try:
        return load_rules(settings.alerts_file).lists
    except BadInputError as error:
        log(f"the page shows no lists of symbols: {error}")
        return {}


def _token(settings: Settings) -> str | None:
    token = settings.dashboard_token
    return resolve(token, "BARFLOW_DASHBOARD_TOKEN") if token else None
