"""Puts the programs that it carries into the code bucket, under a place named by their content.

Deployment runs it. A place that is there already is written again with the same content; others are left alone, so
that rolling a deployment back finds the code it names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import boto3

RELEASE = Path(__file__).with_name("release")


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Returns how many files were put where."""
    bucket, prefix = os.environ["CODE_BUCKET"], os.environ["RELEASE_PREFIX"]
    s3 = boto3.client("s3")
    files = [path for path in sorted(RELEASE.rglob("*")) if path.is_file()]
    for path in files:
        s3.put_object(Bucket=bucket, Key=f"{prefix}/{path.relative_to(RELEASE).as_posix()}", Body=path.read_bytes())
    return {"files": len(files), "place": f"s3://{bucket}/{prefix}/"}
