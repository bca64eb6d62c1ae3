"""What calls a function's handler? `python FILE HANDLER RESULT`, in the function's folder, the event on stdin.

RESULT gets what AWS's own runtime would answer: the returned value, or the error's type and message. A program of its
own, so that a function has a process, a working folder and an environment to itself, and none of this checkout's.
"""

import importlib
import json
import sys
import traceback
import uuid
from pathlib import Path


class Context:
    """What AWS tells a function of its invocation."""

    aws_request_id = str(uuid.uuid4())
    invoked_function_arn = ""


def main() -> int:
    name, result = sys.argv[1], Path(sys.argv[2])
    sys.path[0] = str(Path.cwd())  # in place of this file's folder
    module, _, function = name.rpartition(".")
    try:
        value = getattr(importlib.import_module(module), function)(json.load(sys.stdin), Context())
        result.write_text(json.dumps(value))
    except BaseException as error:
        traceback.print_exc()
        told = {"errorMessage": str(error), "errorType": type(error).__name__}
        result.write_text(json.dumps(told))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
