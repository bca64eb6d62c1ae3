"""The programs of a deployment, published in the code bucket under a prefix that is named by their content.

Earlier prefixes stay. So a rollback, which names an earlier prefix again, also brings its code back.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks.base import BarflowStack
from stacks.bundles import Bundle
from stacks.constructs.grants import allow_objects
from stacks.constructs.python_function import PythonFunction
from stacks.platform import Platform

INSIDE = "release/"  # the folder of a bundle that is published


class Release(Construct):
    """The published files of a bundle. ``uri("spark/bars_to_parquet.py")`` is the address of one."""

    def __init__(
        self,
        stack: BarflowStack,
        construct_id: str,
        *,
        platform: Platform,
        bundle: Bundle,
        bucket: s3.Bucket,
        prefix: str,
    ) -> None:
        """Publish the files when the bundle's content changes."""
        super().__init__(stack, construct_id)
        self.bucket = bucket
        self.prefix = f"{prefix}/{bundle.digest[:16]}"
        self.paths = {path.removeprefix(INSIDE) for path in bundle.paths if path.startswith(INSIDE)}
        publish = PythonFunction(
            stack,
            f"Publish{construct_id}",
            platform=platform,
            bundle=bundle,
            description="Publishes the programs of a deployment in the code bucket",
            memory_mb=512,
            timeout=cdk.Duration.minutes(5),
            environment={"CODE_BUCKET": bucket.bucket_name, "RELEASE_PREFIX": self.prefix},
        )
        allow_objects(publish.role, bucket, platform.keys.data, writes=[prefix])
        publish.run_on_deployment(self, "Run", after=[bucket])

    def uri(self, path: str = "") -> str:
        """Return the S3 URI of a published file, or of the folder. Raise KeyError if the file is not published."""
        return f"s3://{self.bucket.bucket_name}/{self.key(path)}"

    def key(self, path: str) -> str:
        """Return the S3 key of a published file. Raise KeyError if it is not published."""
        if path and path not in self.paths:
            raise KeyError(f"{path} is not among the published programs: {sorted(self.paths)}")
        return f"{self.prefix}/{path}"
