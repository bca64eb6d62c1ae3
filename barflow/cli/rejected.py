"""The commands `barflow rejected …`: list, show and replay quarantined bars."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from barflow.cli.common import Json, OnlySymbols, State, opened, print_json, show_result, stored_names
from barflow.errors import BadInputError

if TYPE_CHECKING:
    from barflow.pipeline.stores import Stores
    from barflow.staging.quarantine import Quarantine

rejected_app = typer.Typer(no_args_is_help=True, help="List, show and replay the bars that validation rejected.")

Reason = Annotated[str | None, typer.Option(help="Only bars with this reason code.")]


@rejected_app.command("list", epilog="Example:  barflow rejected list --symbols AAPL --reason off_grid")
def rejected_list(
    symbols: OnlySymbols = None,
    reason: Reason = None,
    replayed: Annotated[bool, typer.Option("--all", help="Also list replayed bars.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="The most bars to list, newest first.")] = 50,
    state: State = None,
    as_json: Json = False,
) -> None:
    """List rejected bars."""
    from barflow.cli.terminal import show_rejected

    with quarantine_of(state) as (quarantine, stores):
        documents = quarantine.find(stored_names(symbols, stores.settings), reason, waiting=not replayed, limit=limit)
    print_json({"rejected": documents}) if as_json else show_rejected(documents)


@rejected_app.command("show", epilog="Example:  barflow rejected show 3f9a1c")
def rejected_show(
    identifier: Annotated[str, typer.Argument(help="The bar's id, or its first characters.")], state: State = None
) -> None:
    """Show one rejected bar.

    It prints the payload as received, and the meaning of each reason code.
    """
    from barflow.market.validation import REASONS

    with quarantine_of(state) as (quarantine, _):
        document = quarantine.get(identifier)
    if document is None:
        raise BadInputError(
            f"no single rejected bar has an id that starts with {identifier}. Run `barflow rejected list` to see ids."
        )
    print_json({**document, "meaning": {code: REASONS.get(code, "") for code in document["reasons"]}})


@rejected_app.command("replay", epilog="Example:  barflow rejected replay --reason off_grid")
def rejected_replay(
    symbols: OnlySymbols = None, reason: Reason = None, state: State = None, as_json: Json = False
) -> None:
    """Validate rejected bars again and store those that pass. A bar that was fetched since then wins."""
    from barflow.pipeline.replay import replay_rejected

    with quarantine_of(state) as (quarantine, stores):
        waiting = quarantine.find(stored_names(symbols, stores.settings), reason)
        result = replay_rejected(stores.database, waiting, stores.clock())
    show_result(vars(result), as_json)


@contextmanager
def quarantine_of(state: Path | None) -> Iterator[tuple[Quarantine, Stores]]:
    """Open the quarantine of a state folder or of the settings' MongoDB, and its run."""
    from barflow.staging.quarantine import Quarantine

    with opened(state, postgres=False) as stores:
        yield Quarantine(stores.database), stores
