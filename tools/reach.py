"""Compute who reaches whom on which port from the security groups of a Network template.

Traffic passes where an egress rule of the source and an ingress rule of the destination both allow it. A rule without
its counterpart is one-sided: it lets nothing through.

    .venv/bin/python tools/reach.py dev      # print the table for docs/network.md
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))

from tools.markdown_text import table  # noqa: E402

ANYWHERE = "0.0.0.0/0"
EVERY_PORT = (0, 65535)
Template = Mapping[str, Any]


@dataclass(frozen=True, order=True)
class Ports:
    """A protocol and a range of its ports. The protocol ``-1`` stands for all."""

    protocol: str
    low: int = EVERY_PORT[0]
    high: int = EVERY_PORT[1]

    def __str__(self) -> str:
        """Return the ports as the documentation writes them, such as TCP 5432."""
        name = "all" if self.protocol == "-1" else self.protocol.upper()
        if (self.low, self.high) == EVERY_PORT:
            return name if name == "all" else f"{name} all"
        return f"{name} {self.low}" if self.low == self.high else f"{name} {self.low}-{self.high}"

    def shared(self, other: Ports) -> Ports | None:
        """Return what both allow, or None."""
        if "-1" not in (self.protocol, other.protocol) and self.protocol != other.protocol:
            return None
        protocol = other.protocol if self.protocol == "-1" else self.protocol
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Ports(protocol, low, high) if low <= high else None


@dataclass(frozen=True)
class Rule:
    """One rule of a group: its peer (a group or a CIDR) and the ports."""

    group: str
    peer: str
    ports: Ports


@dataclass(frozen=True)
class Reach:
    """The ports that each source reaches at each destination, and the one-sided rules between groups, as text."""

    passes: Mapping[tuple[str, str], frozenset[Ports]]
    one_sided: frozenset[str]


def reach(template: Template) -> Reach:
    """Return who reaches whom by the security groups of the template."""
    outbound, inbound = list(_rules(template, "Egress")), list(_rules(template, "Ingress"))
    groups = set(_names(template).values())
    found: dict[tuple[str, str], set[Ports]] = {}
    for out in outbound:
        if out.peer not in groups:
            found.setdefault((out.group, out.peer), set()).add(out.ports)
        for into in inbound:
            both = out.ports.shared(into.ports)
            if both and out.peer in (into.group, ANYWHERE) and into.peer in (out.group, ANYWHERE):
                found.setdefault((out.group, into.group), set()).add(both)
    for into in inbound:
        if into.peer not in groups:
            found.setdefault((into.peer, into.group), set()).add(into.ports)
    one_sided = {
        f"{rule.group} may send to {rule.peer} on {rule.ports}, and no ingress rule lets it in"
        for rule in outbound
        if rule.peer in groups and not _covered(rule, inbound)
    }
    one_sided |= {
        f"{rule.group} lets {rule.peer} in on {rule.ports}, and no egress rule lets it send"
        for rule in inbound
        if rule.peer in groups and not _covered(rule, outbound)
    }
    return Reach({pair: _widest(ports) for pair, ports in found.items()}, frozenset(one_sided))


def _widest(ports: set[Ports]) -> frozenset[Ports]:
    """Return the ports without those that another range contains."""
    return frozenset(one for one in ports if not any(one != other and one.shared(other) == one for other in ports))


def _covered(rule: Rule, others: list[Rule]) -> bool:
    """Return whether a rule of the peer allows all that this rule allows."""
    return any(
        other.group == rule.peer
        and other.peer in (rule.group, ANYWHERE)
        and rule.ports.shared(other.ports) == rule.ports
        for other in others
    )


def _names(template: Template) -> dict[str, str]:
    """Return the purpose of each security group, from its description, by its logical id."""
    return {
        name: resource["Properties"]["GroupDescription"].partition(": ")[2]
        or resource["Properties"]["GroupDescription"]
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::EC2::SecurityGroup"
    }


def _rules(template: Template, way: str) -> Iterator[Rule]:
    names = _names(template)
    peer = "DestinationSecurityGroupId" if way == "Egress" else "SourceSecurityGroupId"
    kinds = {f"AWS::EC2::SecurityGroup{way}"}
    alone = [item["Properties"] for item in template["Resources"].values() if item["Type"] in kinds]
    for logical_id, name in names.items():
        inline = template["Resources"][logical_id]["Properties"].get(f"SecurityGroup{way}", [])
        mine = [*inline, *(rule for rule in alone if rule["GroupId"]["Fn::GetAtt"][0] == logical_id)]
        if way == "Egress" and not mine:  # EC2's default
            mine = [{"CidrIp": ANYWHERE, "IpProtocol": "-1"}]
        for rule in mine:
            if rule.get("CidrIp") == "255.255.255.255/32":  # CDK's way to say: nothing
                continue
            target = rule.get("CidrIp") or names[rule[peer]["Fn::GetAtt"][0]]
            low, high = rule.get("FromPort", -1), rule.get("ToPort", -1)
            every = Ports(rule["IpProtocol"])
            yield Rule(name, target, every if low == -1 else Ports(rule["IpProtocol"], low, high))


def markdown(found: Reach) -> str:
    """Return the traffic that passes as a Markdown table: one row for each pair, with all of its ports."""
    rows = (
        (source, destination, ", ".join(sorted(map(str, ports))))
        for (source, destination), ports in sorted(found.passes.items())
    )
    return table(("from", "to", "ports"), rows)


def main(argv: list[str] | None = None) -> int:
    """Print the table of an environment from its committed template. Return 1 when a rule is one-sided."""
    parser = argparse.ArgumentParser(
        description="Print who reaches whom on which port.", epilog="Example:  tools/reach.py dev"
    )
    parser.add_argument("env", help="dev, staging or prod")
    env = parser.parse_args(argv).env
    path = ROOT / "tests" / "snapshots" / env / f"Barflow-{env}-Network.json"
    if not path.is_file():
        parser.error(f"there is no {path.relative_to(ROOT)}")
    found = reach(json.loads(path.read_text(encoding="utf-8")))
    print(markdown(found), end="")
    for problem in sorted(found.one_sided):
        print(f"error: {problem}", file=sys.stderr)
    return 1 if found.one_sided else 0


if __name__ == "__main__":
    raise SystemExit(main())
