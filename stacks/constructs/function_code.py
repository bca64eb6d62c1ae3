"""A bundle as the code of a function, built on this machine without Docker, and only when its stack is deployed."""

from __future__ import annotations

import shutil
from typing import Any

import aws_cdk as cdk
import jsii
from aws_cdk import aws_lambda as lambda_

from stacks.bundles import ROOT, Bundle


@jsii.implements(cdk.ILocalBundling)
class _LocalBundling:
    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def try_bundle(self, output_dir: str, options: Any = None, **_: Any) -> bool:
        shutil.copytree(self.bundle.build(), output_dir, dirs_exist_ok=True)
        return True


def function_code(bundle: Bundle) -> lambda_.Code:
    """Return the bundle as a function's code. Its hash is the bundle's digest, which is known without a build."""
    return lambda_.Code.from_asset(
        str(ROOT / "lambda"),  # CDK requires a folder and does not read it: the recipe lists the files
        asset_hash=bundle.digest,
        asset_hash_type=cdk.AssetHashType.CUSTOM,
        bundling=cdk.BundlingOptions(
            image=cdk.DockerImage.from_registry("no-docker-needed"), local=_LocalBundling(bundle)
        ),
    )
