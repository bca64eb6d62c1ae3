"""The run of a command on a state folder: the folder's services, its source of bars, and its clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from barflow.errors import BadInputError
from barflow.market.recordings import Recording
from barflow.market.sessions import utc_now
from barflow.pipeline.stores import Stores
from barflow.progress import Log
from barflow.settings import Settings, load_settings
from emulators.twelvedata.bar_source import BarSource
from emulators.twelvedata.server import TwelveDataEmulator
from local.services import Services
from local.state import State
from local.synthetic import SyntheticBars

DEFAULT_STATE = Path(".barflow")
EMULATOR_KEY = "emulator-key"
# The emulator has no plan: it takes as many symbols in one request as Twelve Data does.
EMULATOR_CREDITS = {"credits_per_minute": 10_000, "credits_per_day": None, "batch_size": 50}


def source_of(state: State) -> BarSource | None:
    """Return the source of the state's bars, or None for the real API."""
    kind = state.source.get("kind")
    if kind == "replay":
        return Recording.load(state.source["path"])
    return SyntheticBars(script=state.script) if kind == "synthetic" else None


@contextmanager
def embedded(
    state: State,
    log: Log,
    *,
    mongo: bool = True,
    postgres: bool = True,
    api: bool = False,
    clock: Callable[[], datetime] | None = None,
    **overrides: Any,
) -> Iterator[Stores]:
    """Start what a command needs of a state folder, yield its run, and stop the services after the block.

    Args:
        state: The state folder.
        log: Gets a line per started service.
        mongo: Whether the command uses MongoDB.
        postgres: Whether the command uses PostgreSQL.
        api: Whether the command uses the Twelve Data API (an emulator, unless the state's bars are the real API's).
        clock: The market's clock (UTC), instead of the state's own.
        overrides: Settings, instead of those of the environment.
    """
    with ExitStack() as stack:
        services = stack.enter_context(Services(state, log, mongo=mongo, postgres=postgres))
        found: dict[str, object] = {"lake_uri": services.lake_uri}
        if mongo:
            found["mongodb_uri"] = services.mongodb_uri
        if postgres:
            found["warehouse_dsn"] = services.warehouse_dsn
        source = source_of(state) if api else None
        if source is not None:
            if load_settings().twelvedata_api_key:
                log(f"TWELVEDATA_API_KEY is not used: {state.path} holds {state.source['kind']} bars")
            server = stack.enter_context(TwelveDataEmulator(source, clock=clock, api_key=EMULATOR_KEY))
            found |= {"twelvedata_url": server.url, "twelvedata_api_key": EMULATOR_KEY, **EMULATOR_CREDITS}
            if state.source["kind"] == "replay":
                found["actions_source"] = "none"  # a recording has bars only: it cannot say that there was no split
        settings: Settings = load_settings(**found, **overrides)
        yield Stores(
            settings,
            clock or market_clock(state),
            services.environment(),
            services.watch,
            warehouse_reader=services.reader_dsn if postgres else None,
        )


@contextmanager
def open_state(path: Path | None, log: Log, *, mongo: bool, postgres: bool, api: bool) -> Iterator[Stores]:
    """Open an existing state folder (default: .barflow) for a command. Raise BadInputError if there is none."""
    chosen = path or DEFAULT_STATE
    if not (chosen / "state.json").exists():
        raise BadInputError(
            f"{chosen} holds no state. Run `barflow demo` first, pass --state FOLDER, "
            "or set BARFLOW_MONGODB_URI, BARFLOW_WAREHOUSE_DSN and BARFLOW_LAKE_URI."
        )
    with embedded(State.open(chosen), log, mongo=mongo, postgres=postgres, api=api) as stores:
        yield stores


def market_clock(state: State) -> Callable[[], datetime]:
    """Return the market's clock: the real one, or of a replay the close of its last bar."""
    as_of = state.as_of
    return utc_now if as_of is None else lambda: as_of
