"""Makes the certificate by which EMR's nodes speak TLS among themselves, and puts it where their roles alone can read.

Deployment runs it when the function is new or changed. The key is made here, seen by nobody and in no template; a
cluster that is running keeps the certificate that it started with.
"""

from __future__ import annotations

import io
import os
import zipfile
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

# Longer than the release of EMR that uses it is supported.
VALID = timedelta(days=3650)


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Returns for which names and until when it is valid."""
    domain, bucket, key = domain_of(os.environ["AWS_REGION"]), os.environ["CODE_BUCKET"], os.environ["CERTIFICATE_KEY"]
    certificate, archive = make(domain, datetime.now(UTC))
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=archive)
    return {"name": f"*.{domain}", "until": certificate.not_valid_after_utc.isoformat()}


def domain_of(region: str) -> str:
    """The domain of private host names in a region."""
    return "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"


def make(domain: str, now: datetime) -> tuple[x509.Certificate, bytes]:
    """A certificate for all hosts of a domain that vouches for itself, and the zip of PEM files that EMR asks for."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"*.{domain}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(f"*.{domain}")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        for place, content in (
            ("privateKey.pem", private),
            ("certificateChain.pem", chain),
            ("trustedCertificates.pem", chain),
        ):
            files.writestr(place, content)
    return certificate, archive.getvalue()
