"""TOML files that people edit, such as alert rules: read with one clear message for each way that fails."""

from __future__ import annotations

import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from barflow.errors import BadInputError


def read_toml(source: Path | Traversable, what: str, variable: str) -> dict[str, Any]:
    """Return the content of a TOML file. Raise BadInputError that names the file, and ``variable`` if it is absent.

    ``what`` names the content in the plural, such as ``alert rules``.
    """
    try:
        return tomllib.loads(source.read_text("utf-8-sig"))
    except OSError as error:
        raise BadInputError(
            f"{what} {source} cannot be read ({error.strerror}). Set {variable} to a TOML file of {what.split()[-1]}."
        ) from None
    except UnicodeDecodeError:
        raise BadInputError(f"{what} {source} are not UTF-8 text. Save the file as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInputError(f"{what} {source} are not TOML: {error}") from None
    except RecursionError:
        raise BadInputError(
            f"{what} {source} are not TOML of {what.split()[-1]}: values are nested too deeply"
        ) from None
