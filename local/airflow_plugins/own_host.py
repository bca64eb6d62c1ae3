"""Airflow plugin: answer only requests that name this machine, so that no other site can rebind its name to it."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin
from starlette.middleware.trustedhost import TrustedHostMiddleware


class OwnHost(AirflowPlugin):
    """Reject a Host header that names neither loopback address nor localhost."""

    name = "own_host"
    fastapi_root_middlewares = [  # noqa: RUF012  Airflow declares the attribute as a list
        {
            "name": name,
            "middleware": TrustedHostMiddleware,
            "kwargs": {"allowed_hosts": ["127.0.0.1", "localhost"], "www_redirect": False},
        }
    ]
