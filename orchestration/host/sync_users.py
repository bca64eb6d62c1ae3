"""Users of Airflow's page, made equal to the file that the host's settings wrote: added, changed and deleted.

Without the file, Airflow has its own login for one user, and there is nothing to do. A password is set only if it
differs, because a new one ends the sessions of its user.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def sync(security: Any, users: dict[str, dict[str, str]]) -> list[str]:
    """Add, change and delete users by Airflow's security manager. Return a line for each change, without a password."""
    from werkzeug.security import check_password_hash

    changes = []
    present = {user.username: user for user in security.get_all_users()}
    for name, given in users.items():
        role = security.find_role(given["role"])
        user = present.get(name)
        if user is None:
            # Airflow requires a mail address; nothing is sent to this one.
            security.add_user(name, name, "", f"{name}@localhost", role, password=given["password"])
            changes.append(f"added {name} as {role.name}")
            continue
        if [item.name for item in user.roles] != [role.name]:
            user.roles = [role]
            security.update_user(user)
            changes.append(f"made {name} {role.name}")
        if not check_password_hash(user.password, given["password"]):
            security.reset_password(user.id, given["password"])
            changes.append(f"set the password of {name}")
    for name in present.keys() - users.keys():
        user = present[name]
        user.roles.clear()
        security.del_register_user(user)  # deletes any row
        changes.append(f"deleted {name}")
    return changes


def main() -> int:
    """Read the file and change Airflow's users. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=Path, default=Path("/run/barflow/airflow/users.json"), help="the users' file")
    path = parser.parse_args().users
    if not path.exists():
        return 0
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from airflow.utils.providers_configuration_loader import providers_configuration_loaded

    @providers_configuration_loaded
    def run() -> list[str]:
        with get_application_builder() as builder:
            builder.sm.sync_roles()
            return sync(builder.sm, json.loads(path.read_text()))

    for change in run():
        print(change, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
