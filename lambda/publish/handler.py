"""Publish function: copy the programs of its bundle to the code bucket, below a prefix with their content's hash.

The deployment runs it. It writes an existing prefix again with the same content, and keeps all others, so that a
rollback finds its own code.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import boto3

RELEASE = Path(__file__).with_name("release")


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Copy the files. Return their number and their place."""
    bucket, prefix = os.environ["CODE_BUCKET"], os.environ["RELEASE_PREFIX"]
    s3 = boto3.client("s3")
    files = [path for path in sorted(RELEASE.rglob("*")) if path.is_file()]
    for path in files:
        s3.put_object(Bucket=bucket, Key=f"{prefix}/{path.relative_to(RELEASE).as_posix()}", Body=path.read_bytes())
    return {"files": len(files), "place": f"s3://{bucket}/{prefix}/"}
