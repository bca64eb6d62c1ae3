"""The certificate of EMR's nodes: they trust each other and nobody else."""

from __future__ import annotations

import io
import ssl
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID
from harness import program
from moto import mock_aws

NODE = "ip-10-20-1-7.eu-west-1.compute.internal"


@pytest.fixture(scope="module")
def function() -> ModuleType:
    return program("lambda/certificate/handler.py")


@pytest.fixture
def published(function: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the files that the function stores in a deployment to eu-west-1."""
    for name, value in {
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "CODE_BUCKET": "code",
        "CERTIFICATE_KEY": "certificates/emr.zip",
    }.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="code", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        function.handler({}, None)
        body = s3.get_object(Bucket="code", Key="certificates/emr.zip")["Body"].read()
    zipfile.ZipFile(io.BytesIO(body)).extractall(tmp_path)
    return tmp_path


def shake_hands(folder: Path, name: str) -> None:
    """Do a TLS handshake of two nodes in memory. The client expects the host ``name``."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "certificateChain.pem", folder / "privateKey.pem")
    client = ssl.create_default_context(cafile=str(folder / "trustedCertificates.pem"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for side in (*sides, *sides):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


def test_nodes_trust_each_other(published: Path) -> None:
    shake_hands(published, NODE)


def test_a_host_outside_the_region_is_not_trusted(published: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(published, "ip-10-20-1-7.ec2.internal")


def test_another_deployments_certificate_is_not_trusted(published: Path, function: ModuleType, tmp_path: Path) -> None:
    _, archive = function.create_certificate("eu-west-1.compute.internal", datetime.now(UTC))
    with zipfile.ZipFile(io.BytesIO(archive)) as other:
        (tmp_path / "trustedCertificates.pem").write_bytes(other.read("trustedCertificates.pem"))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(published, NODE)


def test_the_key_of_a_node_signs_no_certificate_that_another_node_trusts(published: Path) -> None:
    own = x509.load_pem_x509_certificate((published / "certificateChain.pem").read_bytes())
    key = load_pem_private_key((published / "privateKey.pem").read_bytes(), password=None)
    assert isinstance(key, RSAPrivateKey)
    forged = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another.host")]))
        .issuer_name(own.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(own.not_valid_before_utc)
        .not_valid_after(own.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("another.host")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (published / "certificateChain.pem").write_bytes(forged.public_bytes(Encoding.PEM) + own.public_bytes(Encoding.PEM))
    with pytest.raises(ssl.SSLCertVerificationError, match="invalid CA certificate"):
        shake_hands(published, "another.host")


def test_it_is_renewed_before_it_expires(function: ModuleType) -> None:
    from stacks.processing import RENEWAL

    now = datetime.now(UTC)
    certificate, _ = function.create_certificate("ec2.internal", now)
    assert certificate.not_valid_after_utc == (now + timedelta(days=365)).replace(microsecond=0)
    assert RENEWAL.to_days() * 3 < 365


def test_us_east_1_has_its_own_domain(function: ModuleType) -> None:
    assert function.domain_of("us-east-1") == "ec2.internal"
    assert function.domain_of("us-east-2") == "us-east-2.compute.internal"
