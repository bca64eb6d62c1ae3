"""Every stack has the outputs that operators rely on, each with a meaning.

To rename or remove an output breaks scripts. Change this list in the same commit, and note it in the changelog.
"""

from __future__ import annotations

from deployments import Deployment

from stacks.outputs import OUTPUTS

KEYS = {
    "Secrets": {
        *("TwelveDataSecret", "MongoDbSecret", "SlackSecret", "WebhookSecret", "AppriseSecret"),
        *("SshConnectionSecret", "SlackConnectionSecret", "AirflowLoginSecret", "DashboardSecret"),
        *("AirflowUsersSecret", "LineageSecret"),
    },
    "Network": {"NatAddresses", "VpcId"},
    "Storage": {"LakeBucket", "CodeBucket", "LogsBucket", "CodeUri", "JdbcDriver", "JdbcDriverSha256"},
    "Database": {
        *("DatabaseEndpoint", "DatabaseId", "DatabaseAdminSecret"),
        *("LoaderSecret", "ReaderSecret", "MigrateFunction"),
    },
    "Alerts": {"AlertsTopic", "BotQueues", "BotPolicies"},
    "Ingestion": {"IngestFunction", "FailedTicksQueue"},
    "Processing": {"EmrServiceRole", "EmrNodeRole"},
    "Catalog": {
        *("GlueJob", "VisualJob", "GlueDatabase", "LakeCrawler", "WarehouseCrawler"),
        *("AthenaWorkgroup", "BarsRuleset"),
    },
    "Orchestration": {"BalancerName", "HostId", "HostLog", "RuntimeContract"},
    "Observability": {"OperationsTopic", "UnpostedMessagesQueue", "BusinessDashboard", "TechnicalDashboard"},
}


# Of environments whose pages are open to a network.
OF_OPEN_PAGES = {("Secrets", "AirflowUsersSecret"), ("Orchestration", "BalancerName")}
# Of environments with a setting of their own.
OPTIONAL = {*OF_OPEN_PAGES, ("Secrets", "LineageSecret"), ("Secrets", "WebhookSecret"), ("Secrets", "AppriseSecret")}


def shown(deployment: Deployment) -> dict[tuple[str, str], str]:
    """Return the description of each output by (stack, key), without the exports that CDK adds between stacks."""
    return {
        (part, key): output.get("Description", "")
        for part, template in deployment.templates.items()
        for key, output in template.get("Outputs", {}).items()
        if not key.startswith("ExportsOutput")
    }


def test_the_keys_are_those_that_operators_rely_on() -> None:
    known: dict[str, set[str]] = {}
    for output in OUTPUTS:
        known.setdefault(output.stack, set()).add(output.key)
    assert known == KEYS
    assert len(OUTPUTS) == sum(map(len, KEYS.values())), "a key is listed twice"


def test_every_output_has_a_meaning_of_its_own() -> None:
    meanings = [output.meaning for output in OUTPUTS]
    assert all(len(meaning.split()) >= 4 for meaning in meanings)
    assert len(set(meanings)) == len(meanings)


def test_every_environment_has_every_output_with_its_key_and_meaning(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        meanings = {(output.stack, output.key): output.meaning for output in OUTPUTS}
        assert shown(deployment) == {key: text for key, text in meanings.items() if key not in OPTIONAL}


def test_an_environment_with_every_setting_has_every_optional_output(customized: Deployment) -> None:
    assert set(shown(customized)) >= OPTIONAL


def test_only_the_ingest_function_is_absent_when_the_host_ingests(host_ingests: Deployment) -> None:
    missing = {(output.stack, output.key) for output in OUTPUTS} - set(shown(host_ingests)) - OPTIONAL
    assert missing == {("Ingestion", "IngestFunction")}
