"""Barflow: 5-minute stock bars from Twelve Data to MongoDB, Parquet and PostgreSQL.

``read``, ``symbols``, ``actions`` and ``sessions`` are the public Python API: they read the Parquet archive. Semantic
versioning covers them. They are imported on first use, because PyArrow costs seconds that the ingest path must not
spend.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from barflow.lake.read import actions, read, sessions, symbols

__version__ = "0.1.0"
__all__ = ["__version__", "actions", "read", "sessions", "symbols"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module("barflow.lake.read"), name)
    return found
