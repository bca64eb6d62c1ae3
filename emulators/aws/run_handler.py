"""The program that calls a Lambda function's handler: ``python run_handler.py HANDLER RESULT``, the event on stdin.

It runs in the function's folder. RESULT gets what AWS's own runtime would answer: the returned value, or the error's
type and message. It is a program of its own so that a function has its own process, working folder and environment,
and imports nothing of this checkout.
"""

import importlib
import json
import sys
import traceback
import uuid
from pathlib import Path


class Context:
    """The context object that a handler gets."""

    aws_request_id = str(uuid.uuid4())
    invoked_function_arn = ""


def main() -> int:
    """Call the handler and write its answer. Return 1 if it raises."""
    name, result = sys.argv[1], Path(sys.argv[2])
    sys.path[0] = str(Path.cwd())  # instead of this file's folder
    module, _, function = name.rpartition(".")
    try:
        value = getattr(importlib.import_module(module), function)(json.load(sys.stdin), Context())
        result.write_text(json.dumps(value))
    except BaseException as error:
        traceback.print_exc()
        result.write_text(json.dumps({"errorMessage": str(error), "errorType": type(error).__name__}))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
