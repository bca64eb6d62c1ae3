"""Objects of the emulator's S3, read and written from within its own process."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moto.s3.exceptions import MissingBucket
from moto.s3.models import s3_backends

from emulators.aws.account import ACCOUNT
from emulators.aws.authorization import authorize
from emulators.aws.permissions import on_uri


def split_uri(uri: str) -> tuple[str, str]:
    """Return the bucket and the key of an s3:// URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def list_keys(bucket: str, prefix: str = "") -> list[str]:
    """Return the keys of a bucket's existing objects below a prefix. Raise MissingBucket if there is no such bucket."""
    found = _backend()
    keys = [key for key in list(found.get_bucket(bucket).keys.keys()) if key.startswith(prefix)]
    return [key for key in keys if found.get_object(bucket, key) is not None]


def exists(uri: str) -> bool:
    """Return whether the object exists."""
    try:
        return _backend().get_object(*split_uri(uri)) is not None
    except MissingBucket:
        return False


def require_readable(role: str, uris: Iterable[str]) -> None:
    """Check that a role may read these objects, as AWS does before a program starts.

    Raise FileNotFoundError for the first that does not exist, AccessDeniedError for the first that is denied.
    """
    for uri in uris:
        if not exists(uri):
            raise FileNotFoundError(f"{uri} does not exist")
        authorize(role, on_uri("s3:GetObject", uri))


def read(uri: str) -> bytes:
    """Return the content of an object."""
    content: bytes = _backend().get_object(*split_uri(uri)).value
    return content


def download(uri: str, folder: Path) -> Path:
    """Write an object to a file of its name in the folder, and return the file."""
    target = folder / uri.rsplit("/", 1)[1]
    target.write_bytes(read(uri))
    return target


def write(uri: str, content: bytes) -> None:
    """Store an object."""
    _backend().put_object(*split_uri(uri), content)


def write_compressed(uri: str, text: str) -> None:
    """Store a text as a gzip file, as EMR stores a step's log."""
    write(uri, gzip.compress(text.encode()))


def _backend() -> Any:
    return s3_backends[ACCOUNT]["aws"]
