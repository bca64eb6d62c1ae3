"""Events of lineage name servers by their hosts, and never show any part of a credential."""

from __future__ import annotations

import pytest

from barflow.pipeline.lineage_staging import authority


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("mongodb://u:s3cret@b.example,a.example:27018/?replicaSet=rs", "a.example:27018,b.example:27017"),
        ("mongodb://u:s3cret@127.0.0.1:40123/", "localhost"),
        # Passwords that are not percent-encoded. MongoDB's driver refuses them after the first event is sent.
        *((f"mongodb://u:12{wrong}s3cret@db.example/barflow", "db.example:27017") for wrong in "/?#@"),
    ],
)
def test_a_server_is_named_by_its_hosts_alone(address: str, name: str) -> None:
    assert authority(address, 27017) == name
