"""The checks of an account, in the order in which an operator fixes what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from barflow.operations.checks import Check
from barflow.operations.preflight import names, policies, quotas, services
from barflow.operations.preflight.account import Account, unanswered
from barflow.operations.preflight.needs import Needs

Ask = Callable[[Needs, Account], Iterator[Check]]
# A deployment, or its first run, fails without these.
ESSENTIAL: dict[str, Ask] = {
    "region": services.region,
    "availability zones": services.zones,
    "CDK bootstrap": services.bootstrap,
    "stacks": services.stacks,
    f"quota: {quotas.CONCURRENCY.limits}": quotas.concurrency,
    "quota: vCPUs": quotas.vcpus,
    f"quota: {quotas.ELASTIC_IPS.limits}": quotas.elastic_ips,
    f"quota: {quotas.VPCS.limits}": quotas.vpcs,
    "service-linked roles": services.service_linked_roles,
    "EMR": services.emr_types,
    "RDS": services.database,
    "RDS certificates": services.certificates,
    "policies": policies.policies,
}
# A deployment succeeds without these. Each is at most a note.
NOTES: dict[str, Ask] = {
    "budget tag": services.budget_tag,
    "JDBC driver": services.jdbc_driver,
    "secrets": services.secrets,
}


def run(needs: Needs, account: Account) -> Iterator[Check]:
    """Yield every check."""
    for name in questions(needs):
        yield from answers(name, needs, account)


def questions(needs: Needs) -> dict[str, Ask]:
    """Return the questions by name: the essential ones, one per type of name, and the notes."""
    kinds = dict.fromkeys(item.kind for item in needs.names)
    taken = {f"names: {names.KINDS[kind].word}s": partial(names.taken, kind) for kind in kinds}
    return {**ESSENTIAL, **taken, **NOTES}


def answers(name: str, needs: Needs, account: Account) -> Iterator[Check]:
    """Yield the checks of one question. A call that AWS does not answer fails this question and no other one."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield from questions(needs)[name](needs, account)
    except (BotoCoreError, ClientError) as error:
        yield unanswered(name, name not in NOTES, error)
