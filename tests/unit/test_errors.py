"""Codes of AWS errors for messages."""

from __future__ import annotations

import subprocess
import sys

import pytest
import requests
from botocore.exceptions import ClientError, EndpointConnectionError

from barflow.errors import aws_error_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ClientError({"Error": {"Code": "AccessDenied", "Message": "not allowed"}}, "GetParameter"), "AccessDenied"),
        (ClientError({}, "GetParameter"), "ClientError"),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:9"), "EndpointConnectionError"),
        (requests.HTTPError("no", response=requests.Response()), "HTTPError"),
    ],
)
def test_the_code_is_that_of_aws_or_the_name_of_the_class(error: Exception, code: str) -> None:
    assert aws_error_code(error) == code


def test_the_errors_import_no_aws_library() -> None:
    check = "import sys, barflow.errors; print('boto3' in sys.modules or 'botocore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
