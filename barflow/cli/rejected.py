"""The commands `barflow rejected …`: the quarantine, and the way out of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from barflow.cli.common import Json, OnlySymbols, State, opened, print_json, show_result
from barflow.errors import BadInputError
from barflow.settings import parse_symbols

rejected_app = typer.Typer(no_args_is_help=True, help="The quarantine: bars that validation refused.")

Reason = Annotated[str | None, typer.Option(help="Only bars with this reason code.")]


@rejected_app.command("list", epilog="Example:  barflow rejected list --symbols AAPL --reason off_grid")
def rejected_list(
    symbols: OnlySymbols = None,
    reason: Reason = None,
    replayed: Annotated[bool, typer.Option("--all", help="Also those that were replayed.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 50,
    state: State = None,
    as_json: Json = False,
) -> None:
    """List refused bars."""
    from barflow.cli.terminal import show_rejected

    documents = with_quarantine(
        state, lambda quarantine, _: quarantine.find(chosen(symbols), reason, waiting=not replayed, limit=limit)
    )
    print_json({"rejected": documents}) if as_json else show_rejected(documents)


@rejected_app.command("show", epilog="Example:  barflow rejected show 3f9a1c")
def rejected_show(
    identifier: Annotated[str, typer.Argument(help="The id, or its start.")], state: State = None
) -> None:
    """Show one refused bar: its payload as received, and what each reason means."""
    from barflow.market.validation import REASONS

    document = with_quarantine(state, lambda quarantine, _: quarantine.one(identifier))
    if document is None:
        raise BadInputError(
            f"no single rejected bar has an id that starts with {identifier}: see barflow rejected list"
        )
    print_json({**document, "meaning": {code: REASONS.get(code, "") for code in document["reasons"]}})


@rejected_app.command("replay", epilog="Example:  barflow rejected replay --reason off_grid")
def rejected_replay(
    symbols: OnlySymbols = None, reason: Reason = None, state: State = None, as_json: Json = False
) -> None:
    """Judge refused bars by today's rules and store those that pass; a bar fetched since then wins."""
    from barflow.staging.ledger import new_run_id

    def work(quarantine: Any, run: Any) -> Any:
        waiting = quarantine.find(chosen(symbols), reason)
        return quarantine.replay(run.staging, waiting, new_run_id("replay"), run.clock())

    show_result(vars(with_quarantine(state, work)), as_json)


def chosen(symbols: str | None) -> list[str] | None:
    return list(parse_symbols(symbols)) if symbols else None


def with_quarantine(state: Path | None, work: Callable[[Any, Any], Any]) -> Any:
    from barflow.staging.quarantine import Quarantine

    with opened(state, postgres=False) as run:
        return work(Quarantine(run.database), run)
