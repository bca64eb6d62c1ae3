"""Every response of the API matches its OpenAPI document, and no request changes what is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import schemathesis
from backtest_summaries import summary
from hypothesis import HealthCheck, Phase, given, settings
from page_data import load, session_bars, stage
from pymongo.database import Database
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from barflow.backtest.stored import Backtests
from barflow.staging.connection import Document

CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]
READS = ("/api/watchlist", "/api/bars/{symbol}", "/api/alerts", "/api/health", "/api/why", "/api/backtests")


def test_responses_match_the_document_and_nothing_is_written(
    served: Callable[..., Any], database: Database[Document], warehouse_dsn: str
) -> None:
    load(warehouse_dsn, "AAPL", 10)
    stage(database, session_bars("AAPL"))
    Backtests(database).add(summary())
    before = {name: list(database[name].find()) for name in database.list_collection_names()}
    with served() as url:
        schema = schemathesis.openapi.from_url(f"{url}/api/openapi.json")
        for path in READS:

            @settings(max_examples=15, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
            @given(case=schema[path]["GET"].as_strategy())
            def call(case: Any) -> None:
                case.call_and_validate(base_url=url, checks=CHECKS)

            call()
    assert {name: list(database[name].find()) for name in database.list_collection_names()} == before
