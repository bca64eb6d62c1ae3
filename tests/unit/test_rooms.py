"""Rooms add commands by entry point: in a fixed order of the help, and with their own import errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer.main

from barflow.cli.main import ORDER, app
from barflow.cli.rooms import room_commands


def test_the_help_lists_the_commands_of_all_rooms_in_its_order() -> None:
    group = typer.main.get_command(app)
    names = group.list_commands(None)  # type: ignore[attr-defined]
    assert names[: len(ORDER)] == list(ORDER)
    helps = [group.get_command(None, name).get_short_help_str(60) for name in names]  # type: ignore[attr-defined]
    assert not [line for line in helps if not line or line.endswith("...")], "a help line fits its terminal"


def test_an_error_inside_a_room_is_not_mistaken_for_a_missing_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_room").mkdir()
    (tmp_path / "broken_room" / "commands.py").write_text("import a_package_that_is_missing\n")
    (tmp_path / "broken_room.dist-info").mkdir()
    entries = "[barflow.commands]\nbroken = broken_room.commands:broken\n"
    (tmp_path / "broken_room.dist-info" / "entry_points.txt").write_text(entries)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_missing"):
        room_commands()
