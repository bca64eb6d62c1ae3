"""Settings and secrets of the host's services, written from the runtime contract at each start.

The settings are environment files that every user can read; they contain no secret. Airflow's secrets are files of its
own user, in an in-memory folder that systemd removes with the service. Airflow reads them with `cat`, so they are in
no environment and no argument of a process. barflow reads a secret by its name when it needs the value.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import pwd
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.hazmat.primitives.serialization.ssh import load_ssh_private_key
from pydantic import SecretStr

from barflow.contract import RuntimeContract, environment_variables, secret_reference
from barflow.errors import BadInputError, BarflowError
from barflow.operations.airflow_lineage import FILE, lineage_options, transport_file
from barflow.operations.deployment import read_contract
from barflow.secrets import resolve
from barflow.warehouse.authorities import bundle

HOME = "/var/lib/barflow/airflow"
USER = "admin"
CONNECTIONS = ("aws_default", "barflow_ssh", "slack_api_default")
BUNDLE = "airflow.providers.amazon.aws.bundles.s3.S3DagBundle"
BACKEND = "airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend"
ONLY_BARFLOW = "/opt/barflow/release/orchestration/host/only_barflow.sh"
# Airflow's secrets: the file, and the options that are read from it.
SECRET_OPTIONS = {
    "metadata_dsn": ("DATABASE__SQL_ALCHEMY_CONN", "DATABASE__SQL_ALCHEMY_CONN_ASYNC"),
    "fernet_key": ("CORE__FERNET_KEY",),
    "jwt_secret": ("API_AUTH__JWT_SECRET",),
}
Read = Callable[[str], str]  # returns the value of a secret reference
FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
USERS_FILE = "users.json"

# A user of Airflow's page has one of its roles.
USER_NAME, LEAST_PASSWORD, ROLES = re.compile(r"[A-Za-z0-9._-]{1,64}"), 12, ("Admin", "Op", "User", "Viewer")


def airflow_settings(contract: RuntimeContract, folder: Path, home: str, memory: int) -> dict[str, str]:
    """Return the environment of Airflow's processes. ``folder`` has its secrets; ``memory`` is the host's, in bytes."""
    airflow, bucket = contract.airflow, contract.storage.code_bucket
    prefix = contract.storage.code_uri.removeprefix(f"s3://{bucket}/")
    options = {
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": str(tasks_at_once(memory)),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        **_login(contract, folder),
        "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{airflow.port}/execution/",
        "API__HOST": airflow.listen,
        "API__PORT": str(airflow.port),
        "API__WORKERS": "1",
        # The one API worker answers late on a busy host, and a task without an answer is killed.
        "WORKERS__EXECUTION_API_TIMEOUT": "30",
        "WORKERS__MAX_FAILED_HEARTBEATS": "10",
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": f"{home}/bundles",
        # Without a connection, the bundle uses the host's role and needs no look-up.
        "DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
            [
                {
                    "name": "barflow",
                    "classpath": BUNDLE,
                    "kwargs": {
                        "aws_conn_id": None,
                        "bucket_name": bucket,
                        "prefix": f"{prefix}orchestration/dags",
                    },
                }
            ]
        ),
        "SECRETS__BACKEND": BACKEND,
        # Each look-up is an API call: only these connections, no variables, no configuration.
        "SECRETS__BACKEND_KWARGS": json.dumps(
            {
                "connections_prefix": airflow.connections_prefix,
                "connections_lookup_pattern": f"^({'|'.join(CONNECTIONS)})$",
                "variables_prefix": None,
                "config_prefix": None,
            }
        ),
        "LOGGING__REMOTE_LOGGING": "True",
        "LOGGING__REMOTE_BASE_LOG_FOLDER": f"s3://{contract.storage.logs_bucket}/airflow",
        "LOGGING__REMOTE_LOG_CONN_ID": "",
        "LOGGING__DELETE_LOCAL_LOGS": "True",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    for name, read_from in SECRET_OPTIONS.items():
        options |= {f"{option}_CMD": f"cat {folder / name}" for option in read_from}
    return {
        "AIRFLOW_HOME": home,
        # The page uses X-Forwarded headers of these addresses only: the load balancer's.
        "FORWARDED_ALLOW_IPS": ",".join(airflow.proxies or ()),
        "AWS_DEFAULT_REGION": contract.region,
        "BARFLOW_ENV": contract.env,
        "BARFLOW_INGEST_RUNNER": contract.ingestion.runner,
        "BARFLOW_PROCESS_SCHEDULE": ";".join(contract.airflow.process_schedule),
        "BARFLOW_QUALITY_SCHEDULE": ";".join(contract.airflow.quality_schedule),
        **lineage_options(contract.env, contract.settings.openlineage_url, folder),
        **{f"AIRFLOW__{name}": value for name, value in options.items()},
    }


def _login(contract: RuntimeContract, folder: Path) -> dict[str, str]:
    """Return Airflow's options for its login: users of its own if a network may reach the page, else one user."""
    if contract.airflow.users_secret is None:
        return {
            "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "passwords.json"),
        }
    options = {"CORE__AUTH_MANAGER": FAB}
    if contract.airflow.url:
        options |= {"API__BASE_URL": contract.airflow.url, "FAB__COOKIE_SECURE": "True"}
    return options


def tasks_at_once(memory: int) -> int:
    """Return how many tasks run at a time: one per GB of ``memory`` (bytes), at least three.

    A task needs about 300 MB. One that waits for a cluster or a job can be swapped out.
    """
    return max(3, round(memory / 2**30))


def barflow_settings(contract: RuntimeContract) -> dict[str, str]:
    """Return the environment of `barflow` and of the page on the host. They may read the warehouse, not load it."""
    return {
        **environment_variables(contract.reader_settings()),
        "BARFLOW_DASHBOARD_TOKEN": secret_reference(contract.dashboard.token_secret),
        "BARFLOW_PAGE_URL": contract.dashboard.url or "",
        "BARFLOW_PAGE_PROXIES": ",".join(contract.dashboard.proxies or ()),
        "DASHBOARD_LISTEN": contract.dashboard.listen,
        "DASHBOARD_PORT": str(contract.dashboard.port),
        "AIRFLOW_PORT": str(contract.airflow.port),
        "AWS_DEFAULT_REGION": contract.region,
    }


def airflow_secrets(contract: RuntimeContract, read: Read) -> dict[str, str]:
    """Return Airflow's secrets by the name of their file."""
    warehouse = contract.warehouse
    dsn = read(secret_reference(f"{warehouse.airflow_secret}#dsn/{warehouse.airflow_database}"))
    # Airflow connects by itself, so its DSN names the authorities.
    dsn += f"&sslrootcert={quote(bundle(), safe='/')}"
    users, settings = contract.airflow.users_secret, contract.settings
    key = read(settings.openlineage_api_key) if settings.openlineage_api_key else None
    return {
        "metadata_dsn": dsn.replace("postgresql://", "postgresql+psycopg://", 1),
        "fernet_key": fernet_key(read(secret_reference(contract.airflow.fernet_secret))),
        "jwt_secret": read(secret_reference(contract.airflow.jwt_secret)),
        "passwords.json": json.dumps({USER: read(secret_reference(contract.airflow.login_secret))}) + "\n",
        **({USERS_FILE: json.dumps(airflow_users(read(secret_reference(users))))} if users else {}),
        **({FILE: transport_file(settings.openlineage_url, key)} if settings.openlineage_url else {}),
    }


def airflow_users(secret: str) -> dict[str, dict[str, str]]:
    """Return Airflow's users, each with password and role, or none if the secret is not as the runbook describes.

    A message then goes to stderr. The secret of a new deployment has a random value, with which nobody can log in.
    """
    try:
        users = json.loads(secret)
        if isinstance(users, dict) and all(_is_user(name, given) for name, given in users.items()):
            return users
    except ValueError:
        pass
    print(
        "The secret of Airflow's users is not as the runbook describes. Nobody can log in to Airflow's page. Store "
        "the users, then restart barflow-settings.service.",
        file=sys.stderr,
    )
    return {}


def _is_user(name: str, given: object) -> bool:
    return (
        USER_NAME.fullmatch(name) is not None
        and isinstance(given, dict)
        and set(given) == {"password", "role"}
        and given["role"] in ROLES
        and isinstance(given["password"], str)
        and len(given["password"]) >= LEAST_PASSWORD
    )


def fernet_key(secret: str) -> str:
    """Return the fernet key of a generated secret, or the two keys of ``NEW,OLD`` during a rotation.

    A key ends with ``=``, which Secrets Manager does not generate. Raises BadInputError for any other text.
    """
    keys = [f"{part.rstrip('=')}=" for part in secret.split(",")]
    try:
        if all(len(base64.urlsafe_b64decode(key)) == 32 for key in keys):
            return ",".join(keys)
    except ValueError:
        pass
    raise BadInputError("the fernet secret is not 43 letters, digits, - and _. Store its previous value again.")


def authorized_key(connection: str) -> str | None:
    """Return the authorized_keys line of Airflow's SSH connection, or None if the connection has no private key.

    The line allows the `barflow` commands of only_barflow.sh, from the host itself.
    """
    try:
        extra = json.loads(connection)["extra"]
        private = (json.loads(extra) if isinstance(extra, str) else extra)["private_key"].encode()
        load = load_ssh_private_key if b"OPENSSH" in private else load_pem_private_key
        public = load(private, password=None).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    except (ValueError, KeyError, TypeError, AttributeError, UnsupportedAlgorithm):
        return None
    return f'restrict,from="127.0.0.1,::1",command="{ONLY_BARFLOW}" {public.decode()} barflow_ssh\n'


def env_file(values: Mapping[str, str]) -> str:
    """Return an environment file that systemd and a shell read in the same way.

    Raises BadInputError for a value that they would read differently.
    """
    for name, value in values.items():
        if re.search(r"['\n\\]", value):
            raise BadInputError(
                f"{name} contains a quote, a backslash or a line break, which an environment file cannot pass on"
            )
    return "".join(f"{name}='{value}'\n" for name, value in values.items())


def write(path: Path, text: str, mode: int, owner: pwd.struct_passwd | None = None) -> None:
    """Replace a file atomically. Until its mode and owner are set, only the present user can open the new one."""
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    unfinished.chmod(mode)
    if owner and owner.pw_uid != os.getuid():
        os.chown(unfinished, owner.pw_uid, owner.pw_gid)
    unfinished.replace(path)


def write_all(contract: RuntimeContract, to: Path, owner: pwd.struct_passwd, read: Read, home: str = HOME) -> None:
    """Write all files of the host's services to an in-memory folder. Raise BarflowError if a secret is missing.

    ``owner`` is Airflow's user, ``home`` Airflow's home folder.
    """
    folder = to / "airflow"
    secrets = airflow_secrets(contract, read)  # first: if it fails, nothing is written
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    key = authorized_key(read(secret_reference(f"{contract.airflow.connections_prefix}/barflow_ssh")))
    write(to / "airflow.env", env_file(airflow_settings(contract, folder, home, memory)), 0o644)
    write(to / "barflow.env", env_file(barflow_settings(contract)), 0o644)
    write(to / "contract.json", contract.model_dump_json(), 0o644)
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, text in secrets.items():
        write(folder / name, text, 0o600, owner)
    if folder.stat().st_uid != owner.pw_uid:
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    write(to / "authorized_keys", key or "", 0o644)
    if not key:
        print("Airflow's SSH connection has no private key yet. Store one as the runbook describes.", file=sys.stderr)


def main() -> int:
    """Write the files. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=Path("/run/barflow"), help="folder for the files")
    parser.add_argument("--airflow-user", default="airflow", help="owner of Airflow's secrets")
    parser.add_argument("--airflow-home", default=HOME, help="AIRFLOW_HOME of the services")
    given = parser.parse_args()
    try:
        contract = read_contract(os.environ["BARFLOW_ENV"])
        owner = pwd.getpwnam(given.airflow_user)
        write_all(contract, given.to, owner, lambda name: resolve(SecretStr(name), "the host"), given.airflow_home)
    except BarflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"wrote the settings of {contract.env} to {given.to}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
