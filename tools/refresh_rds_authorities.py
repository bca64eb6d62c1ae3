"""Refresh the certificates of Amazon RDS's authorities, which every deployed program trusts for the warehouse.

The bundle is barflow/warehouse/rds_authorities.pem. config/aws/rds_authorities.json has its source, date and SHA-256.
The tool keeps the self-signed certificates of RDS that are valid today, sorted by name, and prints what it adds and
removes. Compare additions with the authorities of your account (`aws rds describe-certificates`) before you commit.

    .venv/bin/python tools/refresh_rds_authorities.py                    # from AWS's trust store
    .venv/bin/python tools/refresh_rds_authorities.py --file BUNDLE.pem  # from a file that you downloaded
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import requests
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "barflow" / "warehouse" / "rds_authorities.pem"
FACTS = ROOT / "config" / "aws" / "rds_authorities.json"
PUBLISHER = "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"
NAME = re.compile(r"Amazon RDS \S+ Root CA (RSA2048|RSA4096|ECC384) G\d+")
PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def authorities(bundle: bytes, now: datetime) -> dict[str, x509.Certificate]:
    """Return the certificates of RDS's authorities that are valid at ``now`` (UTC), by name.

    Raise ValueError if a certificate is not signed by its own key, or if two have one name.
    """
    found: dict[str, x509.Certificate] = {}
    for text in PEM.findall(bundle):
        certificate = x509.load_pem_x509_certificate(text)
        name = common_name(certificate)
        if certificate.issuer != certificate.subject or not NAME.fullmatch(name):
            continue
        certificate.verify_directly_issued_by(certificate)
        if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
            continue
        if found.setdefault(name, certificate) != certificate:
            raise ValueError(f"two certificates are named {name}")
    return dict(sorted(found.items()))


def common_name(certificate: x509.Certificate) -> str:
    """Return the common name of a certificate's subject, or an empty text."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def write(found: dict[str, x509.Certificate], source: str, today: str) -> None:
    """Write the bundle and its facts."""
    blocks = [f"{name}\n{item.public_bytes(Encoding.PEM).decode()}" for name, item in found.items()]
    BUNDLE.write_text("".join(blocks))
    facts = {"source": source, "as_of": today, "sha256": hashlib.sha256(BUNDLE.read_bytes()).hexdigest()}
    FACTS.write_text(json.dumps(facts, indent=1) + "\n")


def main() -> int:
    """Write both files, and print what changed. Return 2 for a bundle without the authorities of RDS."""
    parser = argparse.ArgumentParser(description="Refresh the certificates of Amazon RDS's authorities.")
    parser.add_argument("--file", type=Path, help="a bundle that you downloaded (default: AWS's trust store)")
    parser.add_argument("--source", default=PUBLISHER, help="where the file is from, for config/aws")
    given = parser.parse_args()
    now = datetime.now(UTC)
    try:
        bundle = given.file.read_bytes() if given.file else _download()
        found = authorities(bundle, now)
    except (OSError, ValueError, x509.InvalidVersion, requests.RequestException) as error:
        print(f"error: {given.file or PUBLISHER} cannot be read: {error}. Nothing was changed.", file=sys.stderr)
        return 2
    if not found:
        print("error: the bundle has no valid certificate of RDS. Nothing was changed.", file=sys.stderr)
        return 2
    before = authorities(BUNDLE.read_bytes(), now) if BUNDLE.exists() else {}
    write(found, given.source, f"{now:%Y-%m-%d}")
    for sign, these, those in (("+", found, before), ("-", before, found)):
        for name in sorted(name for name, item in these.items() if those.get(name) != item):
            print(f"{sign} {name}, valid until {these[name].not_valid_after_utc:%Y-%m-%d}")
    print(f"{len(found)} certificates", file=sys.stderr)
    return 0


def _download() -> bytes:
    answer = requests.get(PUBLISHER, timeout=30)
    answer.raise_for_status()
    return answer.content


if __name__ == "__main__":
    sys.exit(main())
