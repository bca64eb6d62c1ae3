"""The programs of a deployment, copied into the code bucket under a place named by their content.

Older places stay, so that rolling a deployment back, which only names the old place again, brings its code back.
"""

from __future__ import annotations

from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_deployment as deployment
from constructs import Construct

from stacks.bundles import Bundle
from stacks.constructs.bundled import deployed_source


class Release(Construct):
    """``uri("spark/bars_to_parquet.py")`` is that file as this deployment publishes it."""

    def __init__(
        self, scope: Construct, construct_id: str, *, bucket: s3.Bucket, prefix: str, bundle: Bundle, key: kms.IKey
    ) -> None:
        super().__init__(scope, construct_id)
        self.bucket, self.bundle = bucket, bundle
        self.prefix = f"{prefix}/{bundle.digest[:16]}"
        self.deployment = deployment.BucketDeployment(
            self,
            "Copy",
            destination_bucket=bucket,
            destination_key_prefix=self.prefix,
            sources=[deployed_source(bundle)],
            prune=False,
            retain_on_delete=True,
            memory_limit=512,
        )

    def uri(self, place: str = "") -> str:
        """The address of a file of the release, or of its folder with a slash at the end. Raises KeyError."""
        if place and place not in self.bundle.places:
            raise KeyError(f"{place} is not in the bundle {self.bundle.name}")
        return f"s3://{self.bucket.bucket_name}/{self.prefix}/{place}"
