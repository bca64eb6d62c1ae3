"""A function's bundle has all that the function imports, and nothing that differs between builds."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import typing_extensions

from stacks.bundles import BUNDLES, INGEST, MIGRATE, READ_METADATA, RELEASE, Bundle, BundleError
from stacks.trimming import UNUSED, loaded_part
from stacks.zip_files import ROOT, ZippedPackage

FUNCTIONS = [bundle for bundle in BUNDLES if bundle.requirements]
# Lambda provides boto3. The extra path has typing_extensions, which packages need only on an older Python.
IMPORT = """
import sys, types
sys.modules["boto3"] = types.ModuleType("boto3")
sys.path[:0] = [".", sys.argv[1]]
import handler
"""
CONDITION = """
from barflow.alerts.expressions import condition
assert condition("close > sma(3)").holds([2.0, 1.0])
"""
# Every service, so that what the lock leaves out is what none of them needs.
SERVICE = """
import logging
logging.getLogger("apprise").addHandler(logging.StreamHandler())
from barflow.alerts.people import _instantiate
for url in ("json://example.com/", "mailto://user:password@example.com", "discord://%s/%s" % ("1" * 18, "a" * 64)):
    assert _instantiate(url), url
from apprise.manager_plugins import NotificationManager
assert len(NotificationManager().schemas()) > 150
import pkgutil, apprise.plugins
for plugin in pkgutil.iter_modules(apprise.plugins.__path__, "apprise.plugins."):
    __import__(plugin.name)
"""
# What a tick imports only with a setting or a failure, and the calls behind it.
OTHERS = """
import tempfile
import barflow.alerts.slack_rate_limit, slack_sdk.errors
from slack_sdk import WebClient, WebhookClient
assert WebClient(token="xoxb-1", timeout=1).chat_postMessage and WebhookClient("https://127.0.0.1:1").send_dict
from barflow.alerts.webhook import Webhook
from barflow.pipeline.lineage_events import FileConfig, FileTransport, HttpConfig, HttpTransport
from datetime import UTC, datetime
HttpTransport(HttpConfig.from_dict({"type": "http", "url": "http://127.0.0.1:1"}))
assert Webhook("whsec_" + "A" * 32).sign("1", datetime(2026, 1, 2, tzinfo=UTC), "{}")
import dns.rdata, dns.rdataclass, dns.rdatatype
for name in ("SRV", "TXT"):  # of mongodb+srv:// addresses
    assert dns.rdata.get_rdata_class(dns.rdataclass.IN, dns.rdatatype.from_text(name)).__name__ == name
from bson import BSON, has_c
from zoneinfo import ZoneInfo
assert has_c() and BSON.encode({"a": 1}).decode() == {"a": 1} and ZoneInfo("America/New_York")
from charset_normalizer import from_bytes
assert str(from_bytes("Zürich, Genève".encode()).best()) == "Zürich, Genève"
from barflow.settings import load_settings
load_settings(webhook_url="https://example.com/a", slack_webhook_url="https://hooks.slack.com/services/T/B/x")
"""
HERE = f"{'aarch64' if platform.machine() in ('arm64', 'aarch64') else 'x86_64'}-manylinux_2_28"


@pytest.mark.skipif(sys.platform != "linux", reason="the wheels of the locks are Linux ones")
@pytest.mark.parametrize("bundle", FUNCTIONS, ids=lambda bundle: bundle.name)
def test_a_function_imports_only_from_its_bundle(bundle: Bundle, tmp_path: Path) -> None:
    """Build the same lock for this machine: the deployed bundle is for arm64."""
    here = replace(bundle, name=f"{bundle.name}-here", platform=HERE, python=f"3.{sys.version_info.minor}")
    shutil.copy(typing_extensions.__file__, tmp_path)
    code = IMPORT + (CONDITION + SERVICE + OTHERS if bundle.name == INGEST.name else "")
    command = [sys.executable, "-I", "-S", "-B", "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=here.build(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def files(bundle: Bundle) -> Iterator[Path]:
    built = bundle.build()
    return (path.relative_to(built) for path in built.rglob("*") if path.is_file())


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_a_bundle_has_no_tests_or_installation_records(bundle: Bundle) -> None:
    assert not [path for path in files(bundle) if {"tests", "bin"} & {*path.parts}]
    records = [path for path in files(bundle) if any(part.endswith(".dist-info") for part in path.parts)]
    assert [path for path in records if not path.match(READ_METADATA)] == []


def test_the_ingest_bundle_has_nothing_that_no_function_uses() -> None:
    inside = [*files(INGEST)]
    for pattern in UNUSED:
        assert not [path for path in inside if path.match(pattern) or path.is_relative_to(pattern)], pattern
    sizes = Counter[bool]()
    for path in inside:
        sizes[path.suffix == ".pyc"] += (INGEST.build() / path).stat().st_size
    assert sizes[False] < 30e6
    assert sizes[True] < 9e6


def test_a_shared_library_loses_its_symbols_and_debug_information_only() -> None:
    built = INGEST.build()
    for name in ("cel", "bson", "pymongo"):
        for library in (built / name).glob("*.so"):
            content = library.read_bytes()
            assert loaded_part(content) == content
            assert content[40:48] == bytes(8), "there is no table of sections"
            assert loaded_part(content + b"symbols") == content
    assert loaded_part(b"#!text") == b"#!text"


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_a_bundle_has_the_licence_of_all_that_is_in_it(bundle: Bundle) -> None:
    inside = [path.as_posix() for path in files(bundle)]
    assert {"LICENSE", "NOTICE"} <= {*inside}
    lock = (ROOT / bundle.requirements).read_text() if bundle.requirements else ""
    packages = {
        name.replace("-", "_").lower() for name in re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==", lock, re.MULTILINE)
    }
    licensed = {path.split("/")[1].rpartition("-")[0].lower() for path in inside if path.startswith("licenses/")}
    assert packages == licensed
    charts = [path for path in inside if "lightweight-charts" in path]
    assert charts in ([], [*charts[:1], f"{charts[0]}.LICENSE"] if charts else [])


def package_data() -> set[str]:
    """Return the data files that the wheel of barflow holds, such as the calendar and the default alert rules."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    found = {
        path.relative_to(ROOT).as_posix()
        for package, names in patterns.items()
        for name in names
        for path in (ROOT / package.replace(".", "/")).glob(name)
    }
    return found - {"barflow/py.typed"}


def test_every_bundle_of_the_library_holds_its_data(tmp_path: Path) -> None:
    named = {"alerts/alerts.toml", "market/instruments.toml", "market/sessions_xnys.csv"}
    assert {f"barflow/{name}" for name in named} <= package_data()
    for bundle, folder in ((INGEST, ""), (MIGRATE, ""), (RELEASE, "release/")):
        assert {folder + name for name in package_data()} <= bundle.paths
    ZippedPackage("barflow").write(library := tmp_path / "barflow.zip")
    assert package_data() <= {*zipfile.ZipFile(library).namelist()}


def test_the_files_that_people_edit_are_found_in_the_zipped_library(tmp_path: Path) -> None:
    ZippedPackage("barflow").write(library := tmp_path / "barflow.zip")
    code = (
        "from barflow.alerts.rules_file import DEFAULT_RULES, load_rules; print(DEFAULT_RULES, len(load_rules().all)); "
        "from barflow.market.instruments import load_instruments; print(load_instruments().present('FB'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(library)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.split() == [f"{library}/barflow/alerts/alerts.toml", "7", "META"]


@pytest.mark.parametrize("bundle", FUNCTIONS, ids=lambda bundle: bundle.name)
def test_a_functions_requirements_are_pinned_with_hashes(bundle: Bundle) -> None:
    assert bundle.requirements is not None
    lines = (bundle.root / bundle.requirements).read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert packages
    assert all("==" in line and line.endswith("\\") for line in packages)


def test_a_missing_file_of_a_recipe_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"bundle b: nowhere\.py does not exist"):
        _ = Bundle(name="b", files={"x.py": "nowhere.py"}, root=tmp_path).digest
