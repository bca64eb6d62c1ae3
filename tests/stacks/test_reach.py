"""Who reaches whom is what docs/network.md says, in every environment."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from deployments import ROOT, Deployment

from tools.reach import Ports, main, markdown, reach

PAGE = ROOT / "docs" / "network.md"


def network(deployment: Deployment) -> dict[str, Any]:
    """Return a copy of an environment's template of the network."""
    return copy.deepcopy(dict(deployment.templates["Network"]))


def without(template: dict[str, Any], kind: str, text: str) -> dict[str, Any]:
    """Return the template without the rules of a type whose logical id begins so."""
    kept = {
        name: item
        for name, item in template["Resources"].items()
        if not (item["Type"] == f"AWS::EC2::SecurityGroup{kind}" and name.startswith(text))
    }
    assert len(kept) < len(template["Resources"])
    return template | {"Resources": kept}


def test_every_environment_reaches_what_the_documentation_says(deployments: list[Deployment]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for deployment in deployments:
        table = markdown(reach(network(deployment)))
        assert table in page, f"put this table into docs/network.md:\n{table}"


def test_no_rule_between_two_groups_lacks_its_counterpart(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        assert reach(network(deployment)).one_sided == frozenset()


def test_nodes_that_may_not_send_to_each_other_are_found(dev_deployment: Deployment) -> None:
    planted = network(dev_deployment)
    core = next(name for name in planted["Resources"] if name.startswith("EmrCoreGroup"))
    found = reach(without(planted, "Egress", f"{core[:12]}toBarflowdevNetworkEmrCoreGroup"))
    nodes = "EMR core and task nodes"
    assert f"{nodes} lets {nodes} in on TCP all, and no egress rule lets it send" in found.one_sided
    assert Ports("tcp") not in found.passes[(nodes, nodes)]
    assert markdown(found) not in PAGE.read_text(encoding="utf-8")


def test_a_destination_that_lets_nobody_in_is_found(dev_deployment: Deployment) -> None:
    found = reach(without(network(dev_deployment), "Ingress", "DatabaseGroupfrom"))
    assert not any(destination == "the warehouse" for _, destination in found.passes)
    assert "the Airflow host may send to the warehouse on TCP 5432, and no ingress rule lets it in" in found.one_sided


def test_a_group_without_egress_rules_sends_everywhere() -> None:
    group = {"Type": "AWS::EC2::SecurityGroup", "Properties": {"GroupDescription": "Barflow dev: anyone"}}
    assert reach({"Resources": {"G": group}}).passes == {("anyone", "0.0.0.0/0"): frozenset({Ports("-1")})}


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (Ports("tcp", 1, 10), Ports("tcp", 5, 20), Ports("tcp", 5, 10)),
        (Ports("tcp", 1, 10), Ports("tcp", 11, 20), None),
        (Ports("tcp", 1, 10), Ports("udp", 1, 10), None),
        (Ports("-1"), Ports("udp", 53, 53), Ports("udp", 53, 53)),
    ],
)
def test_traffic_passes_on_the_ports_that_both_rules_allow(one: Ports, other: Ports, shared: Ports | None) -> None:
    assert one.shared(other) == shared


def test_the_tool_prints_the_table_of_the_committed_template(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dev"]) == 0
    assert capsys.readouterr().out in PAGE.read_text(encoding="utf-8")
