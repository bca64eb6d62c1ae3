"""Airflow's page when a network may reach it: users with passwords and roles, and headers of the balancer alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from contracts import contract_of
from fake_host import HOST
from harness import program

from local.starting import free_port

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(900)]
SETTINGS: Any = program("orchestration/host/write_settings.py")
ADA, BOB = {"password": "a-long-password-1", "role": "Admin"}, {"password": "a-long-password-2", "role": "Viewer"}


class Airflow:
    """Airflow's page with the host's own settings, on a SQLite database of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        given = {"port": self.port, "listen": "127.0.0.1", "users_secret": "users"}
        behind = {"url": "https://airflow.example.com", "proxies": ("127.0.0.2/32",)}
        settings = SETTINGS.airflow_settings(contract_of("dev", airflow=given | behind), folder, str(folder), 2**31)
        for name, text in {
            "fernet_key": "",
            "jwt_secret": "j" * 64,
            "metadata_dsn": f"sqlite:///{folder}/a.db",
        }.items():
            (folder / name).write_text(text)
        asynchronous = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC_CMD": f"echo sqlite+aiosqlite:///{folder}/a.db"}
        local = {"AIRFLOW__SECRETS__BACKEND": "", "AIRFLOW__LOGGING__REMOTE_LOGGING": "False"}
        self.environment = {**os.environ, **settings, **asynchronous, **local}

    def run(self, *arguments: str) -> str:
        """Run a program of the environment, and return what it wrote to stderr."""
        command = [sys.executable, *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def sync(self, users: Mapping[str, Mapping[str, str]]) -> list[str]:
        """Store the users as the host's settings do, and return the changes."""
        path = self.folder / "users.json"
        path.write_text(json.dumps(SETTINGS.airflow_users(json.dumps(users))))
        lines = self.run(str(HOST / "sync_users.py"), "--users", str(path)).splitlines()
        return [line for line in lines if line.split()[0] in ("added", "made", "set", "deleted")]

    def token(self, name: str, password: str) -> requests.Response:
        return requests.post(f"{self.url}/auth/token", json={"username": name, "password": password}, timeout=60)

    def ask(self, method: str, path: str, token: str = "") -> int:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return requests.request(method, f"{self.url}/api/v2/{path}", headers=headers, json={}, timeout=60).status_code


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    made = Airflow(tmp_path_factory.mktemp("users"))
    made.run("-m", "airflow", "db", "migrate")
    assert made.sync({"ada": ADA, "bob": BOB}) == ["added ada as Admin", "added bob as Viewer"]
    command = [sys.executable, "-m", "airflow", "api-server", "--proxy-headers"]
    with (made.folder / "log").open("w") as log:
        page = subprocess.Popen(command, env=made.environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _until(lambda: made.ask("GET", "version") == 200, made.folder / "log")
        yield made
    finally:
        os.killpg(page.pid, 15)
        page.wait(60)


def _until(check: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            if check():
                return
        except requests.ConnectionError:
            pass
        time.sleep(1)
    raise AssertionError(log.read_text()[-3000:])


def test_each_user_has_the_permissions_of_its_role_and_nobody_else_gets_in(airflow: Airflow) -> None:
    ada, bob = (airflow.token(name, user["password"]) for name, user in (("ada", ADA), ("bob", BOB)))
    assert (ada.status_code, bob.status_code) == (201, 201)
    admin, viewer = (answer.json()["access_token"] for answer in (ada, bob))
    assert airflow.ask("GET", "dags", admin) == airflow.ask("GET", "dags", viewer) == 200
    pool = {"name": "p", "slots": 1}
    for token, status in ((viewer, 403), (admin, 201)):
        headers = {"authorization": f"Bearer {token}"}
        assert (
            requests.post(f"{airflow.url}/api/v2/pools", json=pool, headers=headers, timeout=60).status_code == status
        )
    assert airflow.ask("GET", "dags") == 401
    assert airflow.token("ada", BOB["password"]).status_code == 401
    assert airflow.token("admin", "admin").status_code == 401


def test_the_session_cookie_is_secure_and_only_the_balancer_is_believed(airflow: Airflow) -> None:
    answer = requests.get(f"{airflow.url}/auth/login/", allow_redirects=False, timeout=60)
    cookies = [value.lower() for name, value in answer.raw.headers.items() if name.lower() == "set-cookie"]
    assert cookies
    assert all("secure" in cookie and "httponly" in cookie for cookie in cookies)
    seen = (airflow.folder / "log").read_text
    spoofed = {"x-forwarded-for": "203.0.114.9"}
    requests.get(f"{airflow.url}/api/v2/version?as=visitor", headers=spoofed, timeout=60)
    with requests.Session() as balancer:
        balancer.mount("http://", _From("127.0.0.2"))
        balancer.get(f"{airflow.url}/api/v2/version?as=balancer", headers=spoofed, timeout=60)
    time.sleep(1)
    by = {line.split("as=")[1].split()[0].strip("'\""): line for line in seen().splitlines() if "as=" in line}
    assert "203.0.114.9" not in by["visitor"]
    assert "203.0.114.9" in by["balancer"]


class _From(requests.adapters.HTTPAdapter):
    """Connections from an address of loopback."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *arguments: object, **named: object) -> None:
        super().init_poolmanager(*arguments, source_address=(self._address, 0), **named)  # type: ignore[arg-type]


def test_a_change_of_the_secret_changes_the_users(airflow: Airflow) -> None:
    assert airflow.sync({"ada": ADA, "bob": BOB}) == []
    changed = {"ada": {"password": "another-password", "role": "Op"}}
    assert sorted(airflow.sync(changed)) == ["deleted bob", "made ada Op", "set the password of ada"]
    assert airflow.token("ada", ADA["password"]).status_code == 401
    assert airflow.token("bob", BOB["password"]).status_code == 401
    assert airflow.token("ada", "another-password").status_code == 201
