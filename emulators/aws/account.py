"""The account and region of the AWS emulator, and the variables that point an AWS client at it."""

from __future__ import annotations

import os

ACCOUNT, REGION = "123456789012", "us-east-1"
# The access key of a deployed program is this prefix and the name of its role.
ROLE_KEY = "role-"


def client_variables(url: str, role: str | None = None) -> dict[str, str]:
    """Return the environment that points every AWS client at the emulator and away from every real account.

    The client acts as the role, or as the owner of the account if there is none.
    """
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": f"{ROLE_KEY}{role}" if role else "emulator",
        "AWS_SECRET_ACCESS_KEY": "emulator",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
