"""Removal of unused modules, data files and symbol tables from the packages of a bundle.

A function's start downloads its bundle. Each path here is data for people (translations, logos, C sources), another
API of a package (asynchronous, an older version) or another tool of it. The tests run every feature from a bundle.
"""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

# Paths in the folder of a bundle.
UNUSED = (
    # apprise: translations of its own messages, and logos for desktops. Its command line is not installed.
    "apprise/i18n", "apprise/assets", "apprise/cli.py",
    # slack_sdk: asynchronous and legacy clients, and APIs other than the Web API and incoming webhooks.
    "slack", "slack_sdk/audit_logs", "slack_sdk/oauth", "slack_sdk/rtm", "slack_sdk/rtm_v2", "slack_sdk/scim",
    "slack_sdk/socket_mode", "slack_sdk/web/async_*", "slack_sdk/web/legacy_*", "slack_sdk/webhook/async_*",
    # pymongo: files in GridFS, and the sources of its C modules.
    "gridfs", "bson/*.[ch]", "pymongo/*.[ch]",
    # pydantic: its version 1, and its plugin of mypy. packaging: the list of licences.
    "pydantic/v1", "pydantic/mypy.py", "packaging/licenses", "packaging/pylock.py",
    # dateutil: a copy of the time zones. tzdata: the sources of its files.
    "dateutil/zoneinfo/*.tar.gz", "tzdata/zoneinfo/tzdata.zi",
    # anyio: the event loop trio. cel: its command line. yaml, which openlineage imports: its parser in C.
    "anyio/_backends/_trio.py", "cel/cli.py", "yaml/_yaml*", "yaml/cyaml.py", "_yaml",
)  # fmt: skip
ELF, HEADER, PROGRAM = b"\x7fELF\x02\x01", struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")


def trim(bundle: Path) -> None:
    """Remove the unused paths of a bundle, and the symbols of its shared libraries."""
    for pattern in UNUSED:
        for path in [*bundle.glob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for library in bundle.rglob("*.so"):
        content = library.read_bytes()
        if (loaded := loaded_part(content)) != content:
            library.unlink()  # it may be a link to the file in the package manager's cache
            library.write_bytes(loaded)


def loaded_part(library: bytes) -> bytes:
    """Return a shared library without what follows its segments: sections of symbols and debug information.

    The loader reads the ELF header and the segments only (System V ABI, chapter 5). The header then says that there is
    no table of sections. Other content is returned as it is.
    """
    if not library.startswith(ELF):
        return library
    fields = [*HEADER.unpack_from(library)]
    offset, size, count = fields[5], fields[9], fields[10]
    segments = [PROGRAM.unpack_from(library, offset + size * number) for number in range(count)]
    end = max([offset + size * count, *(segment[2] + segment[5] for segment in segments)])
    fields[6] = fields[12] = fields[13] = 0  # e_shoff, e_shnum, e_shstrndx
    return HEADER.pack(*fields) + library[HEADER.size : end]
