"""A page that is open to public networks is behind TLS: a load balancer, which alone reaches it on the host."""

from __future__ import annotations

import json

from deployments import Deployment, as_list, text_of

KIND = "AWS::ElasticLoadBalancingV2"


def attributes(deployment: Deployment) -> dict[str, str]:
    """Return the attributes of the load balancer, with ``<name>`` for CDK's tokens."""
    found = deployment.only("Orchestration", f"{KIND}::LoadBalancer")["LoadBalancerAttributes"]
    return {item["Key"]: text_of(item["Value"]) for item in found}


def test_there_is_no_load_balancer_without_a_certificate(deployments: list[Deployment]) -> None:
    for deployment in deployments:
        assert not deployment.resources("Orchestration", f"{KIND}::LoadBalancer")
        assert "BalancerGroup" not in json.dumps(deployment.templates["Network"])


def test_http_is_redirected_and_https_has_a_current_policy_and_hsts(customized: Deployment) -> None:
    listeners = {item["Port"]: item for item in customized.resources("Orchestration", f"{KIND}::Listener")}
    assert set(listeners) == {80, 443}
    (redirect,) = listeners[80]["DefaultActions"]
    assert redirect["RedirectConfig"] == {"Port": "443", "Protocol": "HTTPS", "StatusCode": "HTTP_301"}
    https = listeners[443]
    # AWS recommends it: TLS 1.3 and 1.2, with ciphers of forward secrecy and post-quantum key exchange.
    assert https["SslPolicy"] == "ELBSecurityPolicy-TLS13-1-2-Res-PQ-2025-09"
    (certificate,) = https["Certificates"]
    assert certificate["CertificateArn"] == customized.environment.balancer.certificate_arn
    headers = {item["Key"]: item["Value"] for item in https["ListenerAttributes"]}
    assert headers["routing.http.response.strict_transport_security.header_value"] == "max-age=31536000"
    (default,) = https["DefaultActions"]
    assert (default["Type"], default["FixedResponseConfig"]["StatusCode"]) == ("fixed-response", "403")


def test_a_page_is_reached_by_its_name_from_its_networks_after_the_login(customized: Deployment) -> None:
    (rule,) = customized.resources("Orchestration", f"{KIND}::ListenerRule")
    conditions = {item["Field"]: item for item in rule["Conditions"]}
    assert conditions["host-header"]["HostHeaderConfig"]["Values"] == ["airflow.example.com"]
    assert conditions["source-ip"]["SourceIpConfig"]["Values"] == ["203.0.114.0/24"]
    login, forward = sorted(rule["Actions"], key=lambda item: item["Order"])
    assert (login["Type"], forward["Type"]) == ("authenticate-oidc", "forward")
    secret = login["AuthenticateOidcConfig"]["ClientSecret"]
    assert secret == "{{resolve:secretsmanager:barflow/dev/oidc:SecretString:::}}"
    (group,) = customized.resources("Orchestration", f"{KIND}::TargetGroup")
    assert (group["Port"], group["Protocol"]) == (8080, "HTTP")


def test_the_load_balancer_drops_invalid_headers_and_logs_every_request(customized: Deployment) -> None:
    found = attributes(customized)
    assert found["routing.http.drop_invalid_header_fields.enabled"] == "true"
    assert (found["access_logs.s3.enabled"], found["access_logs.s3.prefix"]) == ("true", "balancer")
    assert "Logs" in found["access_logs.s3.bucket"]
    policies = customized.resources("Storage", "AWS::S3::BucketPolicy")
    allowed = [
        statement
        for policy in policies
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow" and "elasticloadbalancing" in json.dumps(statement["Principal"])
    ]
    (write,) = allowed
    assert as_list(write["Action"]) == ["s3:PutObject"]
    assert text_of(write["Resource"]).endswith("/balancer/AWSLogs/<AWS::AccountId>/*")
    assert "aws:SourceArn" in json.dumps(write["Condition"])


def test_only_the_load_balancer_reaches_a_page_behind_it(customized: Deployment) -> None:
    resources = customized.templates["Network"]["Resources"]
    into_host = [
        item["Properties"]
        for item in resources.values()
        if item["Type"] == "AWS::EC2::SecurityGroupIngress" and "HostGroup" in json.dumps(item["Properties"]["GroupId"])
    ]
    (rule,) = into_host
    assert "BalancerGroup" in json.dumps(rule["SourceSecurityGroupId"])
    assert (rule["FromPort"], rule["ToPort"]) == (8080, 8080)
    (host,) = [item["Properties"] for name, item in resources.items() if name.startswith("HostGroup")
               and item["Type"] == "AWS::EC2::SecurityGroup"]  # fmt: skip
    assert [(item["CidrIp"], item["FromPort"]) for item in host["SecurityGroupIngress"]] == [("10.1.0.0/16", 8050)]


def test_the_contract_has_the_public_url_and_the_load_balancers_networks(
    customized: Deployment, dev_deployment: Deployment
) -> None:
    airflow, page = customized.contract.airflow, customized.contract.dashboard
    assert airflow.url == "https://airflow.example.com"
    public = [
        item["CidrBlock"]
        for item in customized.resources("Network", "AWS::EC2::Subnet")
        if "public" in json.dumps(item["Tags"])
    ]
    assert list(airflow.proxies or ()) == public
    assert (page.url, page.proxies) == (None, None), "the page is not behind the load balancer"
    assert airflow.users_secret == "barflow/dev/airflow/users"
    closed = dev_deployment.contract.airflow
    assert (closed.url, closed.proxies, closed.users_secret) == (None, None, None)
