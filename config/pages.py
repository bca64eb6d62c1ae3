"""How visitors reach the pages of the host: through Session Manager, through a load balancer, or over plain HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Annotated

from pydantic import Field

from config.validation import Config

HostName = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$")]
HttpsUrl = Annotated[str, Field(pattern=r"^https://[^\s/@]+(/\S*)?$")]
# A rule of a load balancer has five values: the name of the page and its networks.
NETWORKS_OF_A_PAGE = 4


class OidcConfig(Config, title="balancer.oidc"):
    """A login at an OpenID Connect provider, such as a Cognito user pool, before a request reaches a page."""

    issuer: HttpsUrl = Field(description="the https:// URL of the issuer")
    authorization_endpoint: HttpsUrl = Field(description="the https:// URL of the authorization endpoint")
    token_endpoint: HttpsUrl = Field(description="the https:// URL of the token endpoint")
    user_info_endpoint: HttpsUrl = Field(description="the https:// URL of the user info endpoint")
    client_id: str = Field(pattern=r"^\S{1,256}$", description="the id of the client at the provider")
    client_secret: str = Field(
        pattern=r"^[A-Za-z0-9/_+=.@-]{1,512}$", description="the name of the secret in Secrets Manager, not its value"
    )


class BalancerConfig(Config, title="balancer"):
    """The load balancer that ends TLS in front of the pages. There is none without a certificate."""

    certificate_arn: str | None = Field(
        None,
        pattern=r"^arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/[0-9a-f-]{36}$",
        description="the ARN of a certificate in ACM, of the environment's region, for the names of the pages",
    )
    page_name: HostName | None = Field(None, description="a host name such as bars.example.com")
    airflow_name: HostName | None = Field(None, description="a host name such as airflow.example.com")
    oidc: OidcConfig | None = None


@dataclass(frozen=True)
class Page:
    """A page of the host: its settings, the networks that may reach it, and its name at the load balancer."""

    networks_setting: str
    networks: Sequence[str]
    name_setting: str
    name: str | None


def page_problems(pages: Sequence[Page], balancer: BalancerConfig, *, plain_http: bool) -> Iterator[str]:
    """Yield a line for each way in that is not allowed.

    A public network reaches a page only through TLS. A private one may do without if a setting says so: its visitors'
    tokens and passwords then cross that network as plain text.
    """
    if balancer.certificate_arn and not any(page.name for page in pages):
        yield "balancer.certificate_arn is set: balancer.page_name or balancer.airflow_name must be set too"
    for page in pages:
        if page.name and not balancer.certificate_arn:
            yield f"{page.name_setting} is {page.name!r}: balancer.certificate_arn must be set too"
        elif page.name and not 1 <= len(page.networks) <= NETWORKS_OF_A_PAGE:
            yield (
                f"{page.networks_setting} has {len(page.networks)} networks: must have 1 to {NETWORKS_OF_A_PAGE} with "
                f"{page.name_setting}, because a rule of a load balancer has no more"
            )
        elif page.networks and not page.name:
            yield from _without_tls(page, plain_http)


def _without_tls(page: Page, plain_http: bool) -> Iterator[str]:
    public = [cidr for cidr in page.networks if ip_network(cidr).is_global]
    if public:
        yield (
            f"{page.networks_setting} has the public network {public[0]}: must be private without TLS. Set "
            f"balancer.certificate_arn and {page.name_setting}, or remove the network and use Session Manager"
        )
    elif not plain_http:
        yield (
            f"{page.networks_setting} is set: must be empty without TLS. Set balancer.certificate_arn and "
            f"{page.name_setting}, or network.plain_http to send passwords and tokens over the network as plain text"
        )
