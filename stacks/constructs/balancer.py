"""The load balancer that ends TLS in front of the host's pages."""

from __future__ import annotations

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk.aws_elasticloadbalancingv2_targets import InstanceIdTarget
from constructs import Construct

from config.pages import OidcConfig
from stacks.base import BarflowStack, acknowledge
from stacks.platform import Platform

ACCESS_LOGS = "balancer"  # the prefix in the bucket of logs
# A browser that has seen it opens the name over TLS only, for a year.
STRICT_TRANSPORT = "max-age=31536000"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A page of the host: its host name, its port, the networks of its visitors and the path of its health check."""

    name: str
    port: int
    networks: tuple[str, ...]
    health_path: str


class Balancer(Construct):
    """The ``load_balancer``: HTTPS for the pages, each for its own networks, and a redirect from HTTP."""

    def __init__(
        self,
        stack: BarflowStack,
        construct_id: str,
        *,
        platform: Platform,
        group: ec2.SecurityGroup,
        instance_id: str,
        targets: tuple[Target, ...],
        logs_bucket: str,
        public: bool,
    ) -> None:
        """Create the load balancer. It has public addresses only if ``public``."""
        super().__init__(stack, construct_id)
        self._platform, self._instance_id = platform, instance_id
        config = platform.environment.balancer
        assert config.certificate_arn
        self.load_balancer = elb.ApplicationLoadBalancer(
            self,
            "LoadBalancer",
            vpc=platform.vpc,
            internet_facing=public,
            vpc_subnets=ec2.SubnetSelection(
                subnet_type=ec2.SubnetType.PUBLIC if public else ec2.SubnetType.PRIVATE_WITH_EGRESS
            ),
            security_group=group,
            drop_invalid_header_fields=True,
        )
        for key, value in (("enabled", "true"), ("bucket", logs_bucket), ("prefix", ACCESS_LOGS)):
            self.load_balancer.set_attribute(f"access_logs.s3.{key}", value)
        self._listen(config.certificate_arn, targets, config.oidc)
        self._acknowledge()

    def _listen(self, certificate: str, targets: tuple[Target, ...], oidc: OidcConfig | None) -> None:
        to_https = elb.ListenerAction.redirect(protocol="HTTPS", port="443", permanent=True)
        http = self.load_balancer.add_listener("Http", port=80, open=False, default_action=to_https)
        acknowledge(http, "it only redirects to HTTPS", "NIST.800.53.R5-ELBv2ACMCertificateRequired")
        https = self.load_balancer.add_listener(
            "Https",
            port=443,
            open=False,
            certificates=[elb.ListenerCertificate.from_arn(certificate)],
            ssl_policy=elb.SslPolicy.TLS13_12_RES_PQ,
            # For another name, or from a network of another page.
            default_action=elb.ListenerAction.fixed_response(403, content_type="text/plain", message_body="Forbidden"),
        )
        resource = https.node.default_child
        assert isinstance(resource, elb.CfnListener)
        resource.listener_attributes = [
            elb.CfnListener.ListenerAttributeProperty(
                key="routing.http.response.strict_transport_security.header_value", value=STRICT_TRANSPORT
            ),
            elb.CfnListener.ListenerAttributeProperty(key="routing.http.response.server.enabled", value="false"),
        ]
        for priority, target in enumerate(targets, start=1):
            action = elb.ListenerAction.forward([self._group(target)])
            https.add_action(
                f"Page{target.port}",
                priority=priority,
                conditions=[
                    elb.ListenerCondition.host_headers([target.name]),
                    elb.ListenerCondition.source_ips(list(target.networks)),
                ],
                action=_after_login(oidc, action) if oidc else action,
            )

    def _group(self, target: Target) -> elb.ApplicationTargetGroup:
        return elb.ApplicationTargetGroup(
            self,
            f"Target{target.port}",
            vpc=self._platform.vpc,
            port=target.port,
            protocol=elb.ApplicationProtocol.HTTP,
            targets=[InstanceIdTarget(self._instance_id, target.port)],
            # The page answers 400 to the balancer's own requests, because they do not have its name. The host's
            # health check examines the page itself.
            health_check=elb.HealthCheck(path=target.health_path, healthy_http_codes="200-499"),
            deregistration_delay=cdk.Duration.seconds(30),
        )

    def _acknowledge(self) -> None:
        acknowledge(
            self.load_balancer,
            "rules admit the configured networks only, and each page limits logins and requests itself",
            "NIST.800.53.R5-ALBWAFEnabled",
        )
        acknowledge(
            self.load_balancer,
            "it has no data to lose, and the environment may be deleted",
            "NIST.800.53.R5-ELBDeletionProtectionEnabled",
        )


def _after_login(oidc: OidcConfig, action: elb.ListenerAction) -> elb.ListenerAction:
    """Return the action for visitors that the provider has logged in."""
    return elb.ListenerAction.authenticate_oidc(
        issuer=oidc.issuer,
        authorization_endpoint=oidc.authorization_endpoint,
        token_endpoint=oidc.token_endpoint,
        user_info_endpoint=oidc.user_info_endpoint,
        client_id=oidc.client_id,
        client_secret=cdk.SecretValue.secrets_manager(oidc.client_secret),
        session_timeout=cdk.Duration.hours(12),
        allow_https_outbound=False,  # the network stack has the rule
        next=action,
    )
