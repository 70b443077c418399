"""The policy of a tailnet that has not written one."""

from __future__ import annotations

from functools import cache

from controlplane.netmap.policy.model import Policy
from controlplane.netmap.policy.parse import parse_policy

TEXT = """\
// Who may reach what in this tailnet. Every rule allows; what no rule allows is closed.
{
	// Every device reaches every device, and may use every exit node.
	"grants": [
		{"src": ["*"], "dst": ["*"], "ip": ["*"]},
	],

	// People may use SSH to their own devices, after a fresh sign-in for root as for others.
	"ssh": [
		{
			"action": "check",
			"src":    ["autogroup:member"],
			"dst":    ["autogroup:self"],
			"users":  ["autogroup:nonroot", "root"],
		},
	],
}
"""


@cache
def default_policy() -> Policy:
    return parse_policy(TEXT)
