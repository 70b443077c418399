"""The API's addresses of the network as a whole, Trenza's own, and the description of all of them."""

from __future__ import annotations

from django.urls import path

from controlplane.api import (
    approvals,
    dns,
    exitnodes,
    flows,
    logging,
    paths,
    policy,
    relays,
    schema,
    tailnets,
    webhooks,
)

V2 = "api/v2"
TAILNET = f"{V2}/tailnet/<str:tailnet>"
WEBHOOK = f"{V2}/webhooks/<str:endpoint_id>"
OWN = "api/trenza/v1"
OWN_TAILNET = f"{OWN}/tailnet/<str:tailnet>"

urlpatterns = [
    path("api/v2/openapi.json", schema.DescriptionView.as_view(), name="api-description"),
    path(f"{OWN_TAILNET}/approvals", approvals.QueueView.as_view(), name="api-approvals"),
    path(f"{OWN_TAILNET}/approvals/approve", approvals.ApproveView.as_view(), name="api-approve"),
    path(f"{OWN_TAILNET}/approvals/decline", approvals.DeclineView.as_view(), name="api-decline"),
    path(f"{OWN_TAILNET}/relays", relays.RelaysView.as_view(), name="api-relays"),
    path(f"{OWN_TAILNET}/paths", paths.PathsView.as_view(), name="api-paths"),
    path(f"{OWN}/device/<str:device_id>/exit-node", exitnodes.ExitNodeView.as_view(), name="api-exit-node"),
    path(f"{TAILNET}/acl", policy.PolicyFileView.as_view(), name="api-policy"),
    path(f"{TAILNET}/acl/validate", policy.ValidateView.as_view(), name="api-policy-validate"),
    path(f"{TAILNET}/acl/preview", policy.PreviewView.as_view(), name="api-policy-preview"),
    path(f"{TAILNET}/dns/nameservers", dns.NameserversView.as_view(), name="api-dns-nameservers"),
    path(f"{TAILNET}/dns/preferences", dns.PreferencesView.as_view(), name="api-dns-preferences"),
    path(f"{TAILNET}/dns/searchpaths", dns.SearchPathsView.as_view(), name="api-dns-searchpaths"),
    path(f"{TAILNET}/dns/configuration", dns.ConfigurationView.as_view(), name="api-dns-configuration"),
    path(f"{TAILNET}/dns/split-dns", dns.SplitDnsView.as_view(), name="api-split-dns"),
    path(f"{TAILNET}/webhooks", webhooks.WebhooksView.as_view(), name="api-webhooks"),
    path(WEBHOOK, webhooks.OneView.as_view(), name="api-webhook"),
    path(f"{WEBHOOK}/test", webhooks.TrialView.as_view(), name="api-webhook-test"),
    path(f"{WEBHOOK}/rotate", webhooks.SecretView.as_view(), name="api-webhook-rotate"),
    path(
        f"{TAILNET}/logging/configuration",
        logging.ConfigurationLogView.as_view(),
        name="api-logging-configuration",
    ),
    path(f"{TAILNET}/logging/network", flows.FlowLogsView.as_view(), name="api-logging-network"),
    path(
        f"{V2}/organizations/<str:organization>/tailnets",
        tailnets.OrganizationView.as_view(),
        name="api-organization-tailnets",
    ),
    path(TAILNET, tailnets.TailnetView.as_view(), name="api-tailnet"),
]
