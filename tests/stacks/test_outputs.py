"""Are the outputs those that operators rely on, each with a meaning, and each there?

To rename or remove one here is to break somebody's script: say so in the changelog.
"""

from __future__ import annotations

from deployments import Deployment, Synthesize

from config.environment import Environment, IngestConfig
from stacks.outputs import OUTPUTS

KEYS = {
    "Secrets": {
        *("TwelveDataSecret", "MongoDbSecret", "SlackSecret"),
        *("SshConnectionSecret", "SlackConnectionSecret", "AirflowLoginSecret", "DashboardSecret"),
    },
    "Network": {"NatAddresses", "VpcId"},
    "Storage": {"LakeBucket", "CodeBucket", "LogsBucket", "CodeUri"},
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
    "Orchestration": {"HostId", "HostLog", "RuntimeContract"},
    "Observability": {"OperationsTopic", "BusinessDashboard", "TechnicalDashboard"},
}


def shown(deployment: Deployment) -> dict[tuple[str, str], str]:
    """The outputs of the templates, less those by which CDK joins stacks: (stack, key) → description."""
    return {
        (part, key): output.get("Description", "")
        for part, template in deployment.templates.items()
        for key, output in template.get("Outputs", {}).items()
        if not key.startswith("ExportsOutput")
    }


def test_the_keys_are_those_that_operators_know() -> None:
    known: dict[str, set[str]] = {}
    for output in OUTPUTS:
        known.setdefault(output.stack, set()).add(output.key)
    assert known == KEYS
    assert len(OUTPUTS) == sum(map(len, KEYS.values())), "a key is listed twice"


def test_every_output_has_a_meaning_of_its_own() -> None:
    meanings = [output.meaning for output in OUTPUTS]
    assert all(len(meaning.split()) >= 4 for meaning in meanings)
    assert len(set(meanings)) == len(meanings)


def test_every_environment_has_each_output_under_its_key_with_its_meaning(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        assert shown(deployment) == {(output.stack, output.key): output.meaning for output in OUTPUTS}


def test_where_the_host_fetches_only_the_functions_name_is_away(synthesize: Synthesize) -> None:
    by_host = synthesize(Environment(name="byhost", ingest=IngestConfig(runner="host")))
    assert {(output.stack, output.key) for output in OUTPUTS} - set(shown(by_host)) == {("Ingestion", "IngestFunction")}
