"""What stands in for AWS on a laptop? moto's server, as a process of its own, with what deployments miss in it.

``with AwsEmulator() as aws`` starts it on a free port of loopback; ``aws.environment()`` points every AWS client at it,
the CDK CLI included, with made-up keys, so that nothing can reach a real account. It ends with the block, and also when
the process that started it dies: it reads its standard input, which only that process holds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from types import TracebackType
from typing import IO, cast

from barflow.errors import UnavailableError
from emulators.aws.machine import ACCOUNT, REGION, Machine, client_variables

__all__ = ["ACCOUNT", "REGION", "AwsEmulator"]


class AwsEmulator:
    """The emulator, from ``__enter__`` to ``__exit__``. ``url`` is its endpoint.

    With a machine it runs what is deployed: functions, steps, jobs, crawlers and queries.
    """

    url: str

    def __init__(self, machine: Machine | None = None) -> None:
        self.machine = machine

    def __enter__(self) -> AwsEmulator:
        given = [self.machine.to_json()] if self.machine else []
        self._server = subprocess.Popen(
            [sys.executable, "-m", __name__, *given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        port = cast(IO[str], self._server.stdout).readline().strip()
        if not port:
            raise UnavailableError(f"the AWS emulator did not start (exit code {self._server.wait()}); see above")
        # By this name and not by its number: moto reads the buckets' part of a URL off the host name.
        self.url = f"http://localhost:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cast(IO[str], self._server.stdin).close()
        self._server.wait()

    def environment(self) -> dict[str, str]:
        """The variables of this process, pointed at the emulator and away from every real account."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CDK_"))}
        return kept | client_variables(self.url)


def main() -> None:
    import logging

    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    import emulators.aws.cloudformation  # noqa: F401 it mends moto
    from emulators.aws import catalog_types, resource_types

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    logging.getLogger("moto").setLevel(logging.ERROR)
    resource_types.extend()
    catalog_types.extend()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    if given := sys.argv[1:]:
        os.environ["AWS_ENDPOINT_URL"] = f"http://localhost:{port}"
        run_on(Machine.from_json(given[0]))
    print(port, flush=True)
    sys.stdin.read()
    if given:
        from emulators.aws.programs import kill_all

        kill_all()
    server.stop()


def run_on(machine: Machine) -> None:
    """Has this process's moto run what is deployed."""
    from emulators.aws import athena, authorization, crawlers, emr, functions, glue, rds

    authorization.judge(machine)
    for service in (functions, rds, emr, glue, crawlers, athena):
        service.run_on(machine)


if __name__ == "__main__":
    main()
