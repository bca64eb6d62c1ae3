"""The AWS emulator as a separate process: moto's server with this package's patches.

``with AwsEmulator() as aws`` starts it on a free port of loopback. ``aws.environment()`` points every AWS client at it,
the CDK CLI included, with fake access keys, so no call reaches a real account. The process ends with the block. It
also ends when the process that started it dies: it reads its standard input, which only that process holds open.
"""

from __future__ import annotations

import os
import subprocess
import sys
from types import TracebackType
from typing import IO, cast

from emulators.aws.account import ACCOUNT, REGION, client_variables
from emulators.aws.runtime import Runtime, use

__all__ = ["ACCOUNT", "REGION", "AwsEmulator", "EmulatorError"]


class EmulatorError(RuntimeError):
    """The AWS emulator did not start."""


class AwsEmulator:
    """The emulator, running from ``__enter__`` to ``__exit__``; ``url`` is its endpoint.

    With a runtime it also runs what is deployed: functions, steps, jobs, crawlers, queries and the database.
    """

    url: str

    def __init__(self, runtime: Runtime | None = None) -> None:
        self.runtime = runtime

    def __enter__(self) -> AwsEmulator:
        arguments = [self.runtime.to_json()] if self.runtime else []
        self._server = subprocess.Popen(
            [sys.executable, "-m", __name__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        port = cast(IO[str], self._server.stdout).readline().strip()
        if not port:
            raise EmulatorError(
                f"The AWS emulator did not start (exit code {self._server.wait()}). "
                "Nothing was deployed. Read its error above, fix it, then run the command again."
            )
        # The name, not the number: moto reads the bucket of a URL from the host name.
        self.url = f"http://localhost:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cast(IO[str], self._server.stdin).close()
        self._server.wait()

    def environment(self) -> dict[str, str]:
        """Return this process's environment, pointed at the emulator and away from every real account."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CDK_"))}
        return kept | client_variables(self.url)


def main() -> None:
    """Serve until standard input ends; print the port first."""
    import logging

    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    _patch_deployment()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    logging.getLogger("moto").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    if sys.argv[1:]:
        os.environ["AWS_ENDPOINT_URL"] = f"http://localhost:{port}"
        use(Runtime.from_json(sys.argv[1]))
        _patch_services()
    print(port, flush=True)
    sys.stdin.read()
    if sys.argv[1:]:
        from emulators.aws.programs import kill_all

        kill_all()
    server.stop()


def _patch_deployment() -> None:
    """Make moto deploy this project's stacks."""
    from emulators.aws import (  # noqa: F401
        access_analyzer,
        account_apis,
        catalog_types,
        cloudformation,
        deliveries,
        exports,
        fixed_names,
        operations_types,
        own_callers,
        resource_types,
        stack_operations,
    )
    from emulators.aws.deployed import serve_deployed_resources

    serve_deployed_resources()


def _patch_services() -> None:
    """Make moto run what is deployed. This comes second: rds wraps what resource_types has wrapped."""
    from emulators.aws import (  # noqa: F401
        athena,
        authorization,
        cloudwatch,
        crawlers,
        data_quality,
        emr,
        glue,
        host_commands,
        lambda_functions,
        rds,
        rotation,
        workflows,
    )


if __name__ == "__main__":
    main()
