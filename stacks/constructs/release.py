"""The programs of a deployment, put into the code bucket under a place named by their content.

Older places stay, so that rolling a deployment back, which only names the old place again, brings its code back.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_s3 as s3
from aws_cdk import triggers
from constructs import Construct

from stacks.base import BarflowStack
from stacks.bundles import Bundle
from stacks.constructs.grants import allow_objects
from stacks.constructs.python_function import PythonFunction, runs_on_deployment
from stacks.platform import Platform

INSIDE = "release/"


class Release(Construct):
    """``uri("spark/bars_to_parquet.py")`` is that file as this deployment publishes it."""

    def __init__(
        self,
        stack: BarflowStack,
        construct_id: str,
        *,
        bundle: Bundle,
        bucket: s3.Bucket,
        prefix: str,
        platform: Platform,
    ) -> None:
        super().__init__(stack, construct_id)
        self.bucket = bucket
        self.prefix = f"{prefix}/{bundle.digest[:16]}"
        self.places = {place.removeprefix(INSIDE) for place in bundle.places if place.startswith(INSIDE)}
        publish = PythonFunction(
            stack,
            f"Publish{construct_id}",
            bundle=bundle,
            description="Puts the programs of a deployment into the code bucket",
            platform=platform,
            memory_mb=512,
            timeout=cdk.Duration.minutes(5),
            environment={"CODE_BUCKET": bucket.bucket_name, "RELEASE_PREFIX": self.prefix},
        )
        runs_on_deployment(publish)
        allow_objects(publish.role, bucket, platform.keys.data, writes=[prefix])
        triggers.Trigger(self, "Run", handler=publish.function, timeout=cdk.Duration.minutes(6), execute_after=[bucket])

    def uri(self, place: str = "") -> str:
        """The address of a file of the release, or of its folder with a slash at the end. Raises KeyError."""
        return f"s3://{self.bucket.bucket_name}/{self.key(place)}"

    def key(self, place: str) -> str:
        """The same within the bucket. Raises KeyError."""
        if place and place not in self.places:
            raise KeyError(f"{place} is not among the published programs: {sorted(self.places)}")
        return f"{self.prefix}/{place}"
