"""Read what AWS services accept from the JSON files of this folder.

Each file has its source and date. ``tools/refresh_aws_facts.py`` writes the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict

FOLDER = Path(__file__).parent
# A range in an AllowedValues text of RDS, such as -1-2147483647.
RANGE = re.compile(r"(-?\d+)-(-?\d+)")


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Names in one string, separated by spaces: a long list stays one line of the file.
Names = Annotated[tuple[str, ...], BeforeValidator(_split)]


class Facts(BaseModel):
    """Facts of one service, where they come from, and when they were read.

    ``note`` says which of them could not be verified. ``read_in`` is the region of the account that they were read
    from; it is empty for facts from packages and documentation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    as_of: date
    note: str = ""
    read_in: str = ""


class EmrFacts(Facts):
    """The instance types of one EMR release: the sizes of each family."""

    release: str
    families: dict[str, Names]

    def offers(self, instance_type: str) -> bool:
        """Return whether a cluster of the release can have the instance type."""
        family, _, size = instance_type.partition(".")
        return size in self.families.get(family, ())

    def instance_types(self) -> Iterator[str]:
        """Yield every instance type of the release."""
        return (f"{family}.{size}" for family, sizes in self.families.items() for size in sizes)


class Parameter(BaseModel):
    """A parameter of an RDS parameter group, as DescribeEngineDefaultParameters returns it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_type: str
    allowed_values: str | None = None

    def accepts(self, value: str) -> bool:
        """Return whether RDS accepts the value. A list may hold several of the allowed values."""
        if self.allowed_values is None:
            return True
        values = value.split(",") if self.data_type == "list" else [value]
        return all(self._accepts_one(item.strip()) for item in values)

    def _accepts_one(self, value: str) -> bool:
        for allowed in (self.allowed_values or "").split(","):
            numbers = RANGE.fullmatch(allowed)
            if value == allowed or (
                numbers
                and re.fullmatch(r"-?\d+", value)
                and int(numbers.group(1)) <= int(value) <= int(numbers.group(2))
            ):
                return True
        return False


class RdsFacts(Facts):
    """The versions, instance classes and parameters of RDS for PostgreSQL.

    ``parameters`` holds the parameters that the stacks set, by parameter group family.
    """

    engine_versions: Names
    deprecated_versions: Names
    classes: dict[str, Names]
    parameters: dict[str, dict[str, Parameter]]

    def offers_class(self, instance_class: str) -> bool:
        """Return whether RDS for PostgreSQL has the class, such as db.t4g.micro."""
        family, _, size = instance_class.rpartition(".")
        return size in self.classes.get(family, ())


class GlueVersion(BaseModel):
    """What a Glue version runs, and the job arguments that it ignores, with the argument that replaces each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spark: str
    python: str
    ignored_arguments: dict[str, str] = {}


class GlueFacts(Facts):
    """The versions and worker types of Glue, and the job arguments that Glue itself reads."""

    versions: dict[str, GlueVersion]
    worker_types: Names
    arguments: Names


class LambdaFacts(Facts):
    """The runtimes of Lambda with the date from which each is deprecated, the architectures and the limits."""

    runtimes: dict[str, date | None]
    architectures: Names
    memory_mb: tuple[int, int]
    timeout_seconds: tuple[int, int]


class LogsFacts(Facts):
    """The retentions that CloudWatch Logs accepts, in days."""

    retention_days: tuple[int, ...]


class RegionFacts(Facts):
    """What each region lacks of the resource types in the templates and of Graviton instance families."""

    regions: Names
    missing_types: dict[str, Names]
    missing_ec2: dict[str, Names]
    missing_emr: dict[str, Names]
    missing_rds: dict[str, Names]


F = TypeVar("F", bound=Facts)


def _read(kind: type[F], name: str) -> F:
    return kind.model_validate_json((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@cache
def emr() -> EmrFacts:
    """Return what EMR accepts."""
    return _read(EmrFacts, "emr")


@cache
def rds() -> RdsFacts:
    """Return what RDS for PostgreSQL accepts."""
    return _read(RdsFacts, "rds")


@cache
def glue() -> GlueFacts:
    """Return what Glue accepts."""
    return _read(GlueFacts, "glue")


@cache
def functions() -> LambdaFacts:
    """Return what Lambda accepts."""
    return _read(LambdaFacts, "lambda")


@cache
def logs() -> LogsFacts:
    """Return what CloudWatch Logs accepts."""
    return _read(LogsFacts, "logs")


@cache
def regions() -> RegionFacts:
    """Return what each region lacks."""
    return _read(RegionFacts, "regions")
