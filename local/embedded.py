"""How does a command run on a state folder? With the folder's services up, its source of bars, and its clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from barflow.errors import BadInputError
from barflow.market.sessions import utc_now
from barflow.pipeline.stores import Run
from barflow.settings import Settings, load_settings
from emulators.twelvedata.bar_source import BarSource
from emulators.twelvedata.server import TwelveDataEmulator
from local.replay import ReplayBars
from local.services import Services
from local.state import State
from local.synthetic import SyntheticBars

Say = Callable[[str], None]
DEFAULT_STATE = Path(".barflow")
EMULATOR_KEY = "emulator-key"
# The emulator has no plan: as many symbols in one request as the vendor takes.
EMULATOR_CREDITS = {"credits_per_minute": 10_000, "credits_per_day": None, "batch_size": 50}


def source_of(state: State) -> BarSource | None:
    """The bars that the state was made from, or None when they are the real API's."""
    kind = state.source.get("kind")
    if kind == "replay":
        return ReplayBars.load(state.source["path"])
    return SyntheticBars() if kind == "synthetic" else None


@contextmanager
def embedded(
    state: State,
    say: Say,
    *,
    mongo: bool = True,
    postgres: bool = True,
    api: bool = False,
    clock: Callable[[], datetime] | None = None,
    **overrides: object,
) -> Iterator[Run]:
    """Starts what a command needs of a state folder and stops it after the block. ``clock`` replaces the state's."""
    with ExitStack() as stack:
        services = stack.enter_context(Services(state, say, mongo=mongo, postgres=postgres))
        found: dict[str, object] = {"lake_uri": services.lake_uri}
        if mongo:
            found["mongodb_uri"] = services.mongodb_uri
        if postgres:
            found["warehouse_dsn"] = services.warehouse_dsn
        source = source_of(state) if api else None
        if source is not None:
            server = stack.enter_context(TwelveDataEmulator(source, clock=clock, api_key=EMULATOR_KEY))
            found |= {"twelvedata_url": server.url, "twelvedata_api_key": EMULATOR_KEY, **EMULATOR_CREDITS}
        settings: Settings = load_settings(**found, **overrides)
        yield Run(settings, clock or market_clock(state), services.environment(), services.watch)


def market_clock(state: State) -> Callable[[], datetime]:
    """The real clock, or the moment after the last recorded bar."""
    as_of = state.as_of
    return utc_now if as_of is None else lambda: as_of


def open_default_state(path: Path | None) -> State:
    """The state folder of a command that does not make one. Raises BadInputError when there is none."""
    chosen = path or DEFAULT_STATE
    if not (chosen / "state.json").exists():
        raise BadInputError(
            f"{chosen} holds no state. Run `barflow demo` first, pass --state FOLDER, "
            "or set BARFLOW_MONGODB_URI, BARFLOW_WAREHOUSE_DSN and BARFLOW_LAKE_URI."
        )
    return State.open(chosen)
