"""Certificate function: create the TLS certificate of EMR's nodes and store it where only their roles can read it.

The deployment runs it when the function is new or changed, and a rule runs it every month, so the certificate never
expires. The private key is generated here and is in no template. A running cluster keeps the certificate with which it
started.
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
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Eleven renewals may fail. No cluster lives as long.
VALID = timedelta(days=365)


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Create and store a certificate. Return its name and the end of its validity."""
    domain, bucket, key = domain_of(os.environ["AWS_REGION"]), os.environ["CODE_BUCKET"], os.environ["CERTIFICATE_KEY"]
    certificate, archive = create_certificate(domain, datetime.now(UTC))
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=archive)
    return {"name": f"*.{domain}", "until": certificate.not_valid_after_utc.isoformat()}


def domain_of(region: str) -> str:
    """Return the domain of private host names in a region."""
    return "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"


def create_certificate(domain: str, now: datetime) -> tuple[x509.Certificate, bytes]:
    """Return a self-signed certificate for all hosts of a domain, and the zip of PEM files that EMR expects.

    Nodes trust the certificate itself. It is no authority: its key signs no other certificate that they trust.
    """
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
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False)
        .sign(key, hashes.SHA256())
    )
    chain = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        for name_in_zip, content in (
            ("privateKey.pem", private),
            ("certificateChain.pem", chain),
            ("trustedCertificates.pem", chain),
        ):
            files.writestr(name_in_zip, content)
    return certificate, archive.getvalue()
