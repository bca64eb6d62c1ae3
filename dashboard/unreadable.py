"""Documents that this version of the page cannot read. They are skipped and counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

from barflow.staging.connection import Document

# Documents of one collection that are counted.
MAX_COUNTED = 1000
Made = TypeVar("Made")


class Unreadable:
    """The unreadable documents that the page has met, each counted once, by collection."""

    def __init__(self) -> None:
        self._ids: defaultdict[str, set[str]] = defaultdict(set)

    def read(self, collection: str, document: Document, parse: Callable[[Document], Made]) -> Made | None:
        """Return what ``parse`` makes of a document, or None if it raises. A later success ends the count."""
        key = repr(document.get("_id"))
        try:
            made = parse(document)
        except Exception:  # another version, or another program, may have written anything
            if len(self._ids[collection]) < MAX_COUNTED:
                self._ids[collection].add(key)
            return None
        self._ids[collection].discard(key)
        return made

    def counts(self) -> dict[str, int]:
        """Return the number of unreadable documents by collection, without the collections that have none."""
        return {name: len(ids) for name, ids in sorted(self._ids.items()) if ids}
