"""The published Go client (tailscale-client-go) against a live server.

A program in Go makes the calls, once for all tests here, and prints what it read.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane.clients.live import ROUTES, Harbour, second, stored
from tests.needs import GO_CLIENT, program

pytestmark = pytest.mark.needs("go-client")
BUILD_SECONDS = 270
RUN_SECONDS = 120
ZERO = "0001-01-01T00:00:00Z"  # what Go reads where there is nothing
EXPIRY = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
NODE, KEY = "nodes.Node", "nodes.PreAuthKey"


@dataclass(frozen=True)
class Run:
    """What the program printed, call by call, and the devices' rows before it ran."""

    lines: dict[str, dict[str, Any]]
    before: dict[str, dict[str, Any]]

    def __getitem__(self, call: str) -> Any:
        """What a call returned."""
        line = self.lines[call]
        assert "error" not in line, line
        return line.get("value")

    def refusal(self, call: str) -> tuple[int, str]:
        """With which status a call was refused, and in which words."""
        line = self.lines[call]
        assert "error" in line, line
        return line.get("status", 0), line["error"]

    @property
    def refused(self) -> set[str]:
        return {call for call, line in self.lines.items() if "error" in line}


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("go") / "client"
    subprocess.run(
        [str(program("go")), "build", "-mod=readonly", "-o", str(built), "."],
        cwd=GO_CLIENT,
        check=True,
        timeout=BUILD_SECONDS,
    )
    return built


@pytest.fixture(scope="module")
def run(binary: Path, harbour: Harbour) -> Run:
    harbour.join("spare", "own_key").close()
    rows = {row["hostname"]: row for row in harbour.rows(NODE)}
    told = {
        "URL": harbour.url,
        "Token": harbour.made["token"],
        "BriefToken": harbour.ask("brief_tailnet")["token"],
        "ClientID": harbour.made["client_id"],
        "ClientSecret": harbour.made["client_secret"],
        "Person": str(harbour.made["people"]["ana"]),
        "Expiry": second(EXPIRY),
    } | {name.capitalize(): row["stable_id"] for name, row in rows.items()}
    harbour.online("router")
    done = subprocess.run(
        [str(binary)], input=json.dumps(told), capture_output=True, text=True, check=True, timeout=RUN_SECONDS
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    named = {line["call"]: line for line in lines}
    assert len(named) == len(lines), "two calls have one name"
    return Run(named, rows)


# --- devices -----------------------------------------------------------------------------------------------


def test_devices(run: Run) -> None:
    devices = {device["hostname"]: device for device in run["devices"]}
    assert devices.keys() == run.before.keys()
    for name, device in devices.items():
        row = run.before[name]
        assert (device["id"], device["nodeId"]) == (str(row["id"]), row["stable_id"])
        assert device["addresses"] == [row["ipv4"], row["ipv6"]]
        assert (device["machineKey"], device["nodeKey"]) == (row["machine_key"], row["node_key"])
        assert device["authorized"] is (row["state"] == "active")
        assert (device["tags"] or []) == row["tags"]
        assert device["user"] == ("tagged-devices" if row["tags"] else "ana@harbour.example")
        assert (device["created"], device["expires"]) == (stored(row["created"]), stored(row["key_expiry"]))
        assert device["isEphemeral"] is row["ephemeral"]
        assert device["connectedToControl"] is (name == "router")
        assert (device["lastSeen"] is None) is (name == "router")
        assert device["clientConnectivity"] is None


def test_devices_with_all_fields(run: Run) -> None:
    (router,) = (device for device in run["devices all"] if device["hostname"] == "router")
    assert run["device all"] == router
    assert (router["AdvertisedRoutes"], router["enabledRoutes"]) == (ROUTES, [])
    assert router["sshEnabled"] is True
    assert router["distro"] == {"name": "debian", "version": "13.1", "codeName": "trixie"}
    network = router["clientConnectivity"]
    assert network["endpoints"] == run.before["router"]["endpoints"]
    assert (network["derp"], network["mappingVariesByDestIP"]) == ("127.3.3.40:900", True)
    assert [one["latencyMs"] for one in network["latency"].values() if one.get("preferred")] == [12.5]
    assert network["clientSupports"] == {
        "hairPinning": False,
        "ipv6": False,
        "pcp": False,
        "pmp": True,
        "udp": True,
        "upnp": False,
    }
    plain = {name: value for name, value in router.items() if run["device"][name] == value}
    assert router.keys() - plain.keys() == {
        "AdvertisedRoutes",
        "enabledRoutes",
        "sshEnabled",
        "distro",
        "clientConnectivity",
    }


def test_devices_that_fit(run: Run) -> None:
    assert {device["hostname"] for device in run["devices by name"]} == {"router", "base"}
    assert {device["hostname"] for device in run["devices by two"]} == {"base"}
    status, words = run.refusal("devices by nonsense")
    assert (status, "hostname" in words) == (400, True)
    assert run.refusal("device gone")[0] == 404


def test_what_is_done_to_devices(run: Run, harbour: Harbour) -> None:
    assert (run["authorize"], run["authorized"]["authorized"], run["unauthorize"]) == (True, True, True)
    assert harbour.node("guest")["state"] == "pending"
    assert run["name"]
    assert run["named"]["name"].startswith("bridge.harbour.")
    assert run["tags"]
    assert sorted(harbour.node("base")["tags"]) == ["tag:db", "tag:web"]
    status, words = run.refusal("no tags")
    assert (status, "sign in" in words) == (409, True)
    assert (run["device key"], run["ip"]) == (True, True)
    laptop = harbour.node("laptop")
    assert (laptop["name"], laptop["key_expiry_disabled"], laptop["ipv4"]) == ("bridge", True, "100.80.0.9")
    assert run["routes"]
    assert run["routes set"] == {
        "advertisedRoutes": ROUTES,
        "enabledRoutes": ["10.2.0.0/16", "10.9.0.0/16"],
    }
    assert run["delete"]
    assert run.refusal("deleted")[0] == 404
    assert harbour.rows(NODE, hostname="spare") == []


def test_posture_attributes(run: Run, harbour: Harbour) -> None:
    assert run["attribute"]
    assert run["attribute for ever"]
    assert run["attributes"]["attributes"]["custom:score"] == 87
    assert run["attributes"]["attributes"]["node:os"] == "linux"
    assert run["attributes"]["expiries"] == {"custom:score": second(EXPIRY)}
    assert run["attribute deleted"]
    (left,) = harbour.rows("nodes.PostureAttribute")
    assert (left["key"], left["value"], left["expires"]) == ("custom:lab", True, None)


# --- DNS ---------------------------------------------------------------------------------------------------


def test_dns(run: Run, harbour: Harbour) -> None:
    assert run["set nameservers"]
    assert run["nameservers"] == ["9.9.9.9", "1.1.1.1"]
    assert run["set preferences"]
    assert run["preferences"] == {"magicDNS": False}
    assert run["set search paths"]
    assert run["search paths"] == ["corp.example.com"]
    assert run["set split"]
    assert (
        run["update split"]
        == run["split"]
        == {"corp.example.com": ["10.1.0.53"], "new.example.com": ["10.3.0.53"]}
    )
    assert run["nil lists"]
    emptied = run["configuration without lists"]
    assert (emptied.get("nameservers"), emptied.get("searchPaths")) == (None, None)
    assert run["set configuration"]
    assert run["configuration"] == {
        "nameservers": [{"address": "9.9.9.9", "useWithExitNode": True}],
        "splitDNS": {"corp.example.com": [{"address": "10.1.0.53"}]},
        "searchPaths": ["corp.example.com"],
        "preferences": {"magicDNS": True, "overrideLocalDNS": True},
    }
    assert run["empty configuration"]
    assert run["emptied configuration"] == {"preferences": {}}
    row = harbour.row("controlplane.DNSSettings")
    assert (row["nameservers"], row["split_dns"], row["search_paths"]) == ([], {}, [])
    assert (row["magic_dns"], row["override_local_dns"]) == (False, False)


# --- the policy --------------------------------------------------------------------------------------------


def test_the_policy_file(run: Run, harbour: Harbour) -> None:
    assert run["validate policy"]
    assert run["set policy"]
    assert run["raw policy"]["HuJSON"].startswith("{\n\t// who may what\n")
    assert run["policy"]["tagOwners"] == {"tag:db": [], "tag:web": []}
    assert run["policy"]["acls"] == [
        {"action": "accept", "src": ["autogroup:member"], "dst": ["tag:db:5432"]}
    ]
    assert run["same etag"] is True
    assert run["policy from its parts"]["hosts"] == {"gate": "10.0.0.1"}
    assert run.refusal("set policy twice")[0] == 412
    status, words = run.refusal("set wrong policy")
    assert (status, bool(words)) == (400, True)
    _, words = run.refusal("validate tests")
    assert "ACL validation failed: test(s) failed" in words
    assert run["reset policy"]
    assert run["raw policy after"] == run["raw policy before"]
    assert [row["number"] for row in harbour.rows("controlplane.PolicyVersion")] == [1, 2, 3]


# --- keys and people ---------------------------------------------------------------------------------------


def test_auth_keys(run: Run, harbour: Harbour) -> None:
    made, found, ended = run["create key"], run["key"], run["key deleted"]
    row = harbour.row(KEY, public_id=made["id"])
    assert made["key"].startswith("tskey-auth-")
    assert made | {"key": ""} == found
    assert (found["keyType"], found["description"], found["expirySeconds"]) == ("auth", "web servers", 3600)
    assert (found["created"], found["expires"]) == (stored(row["created"]), stored(row["expires"]))
    assert found["capabilities"]["devices"]["create"] == {
        "reusable": True,
        "ephemeral": False,
        "tags": ["tag:web"],
        "preauthorized": True,
    }
    assert (found["invalid"], found["revoked"], found["updated"]) == (False, ZERO, ZERO)
    assert run["delete key"]
    assert (ended["invalid"], ended["revoked"]) == (True, stored(row["revoked_at"]))
    assert run["create plain key"]["expirySeconds"] == timedelta(days=90).total_seconds()


def test_oauth_clients(run: Run, harbour: Harbour) -> None:
    made, changed = run["create client"], run["set client"]
    assert made["key"].startswith("tskey-client-")
    assert (made["keyType"], made["scopes"], made["description"]) == ("client", ["dns"], "robot")
    assert run["client"] == changed
    assert (changed["scopes"], changed["tags"]) == (["auth_keys", "dns:read"], ["tag:web"])
    assert changed["description"] == "other"
    assert run["delete client"]
    assert run.refusal("client deleted")[0] == 404
    assert harbour.row("accounts.OAuthClient", public_id=made["id"])["revoked_at"] is not None
    status, words = run.refusal("create federated")
    assert (status, "not offered" in words) == (400, True)


def test_lists_of_keys(run: Run, harbour: Harbour) -> None:
    tokens = {row["public_id"] for row in harbour.rows("accounts.ApiToken", oauth_client=None)}
    auth = {row["public_id"] for row in harbour.rows(KEY)}
    everything = {key["id"] for key in run["keys all"]}
    assert everything == tokens | auth | {harbour.made["client_id"]}
    own = {key["id"] for key in run["keys"]}
    assert own < everything
    assert harbour.made["client_id"] not in own


def test_users(run: Run, harbour: Harbour) -> None:
    places = {str(row["user_id"]): row for row in harbour.rows("accounts.Membership")}
    users = {user["id"]: user for user in run["users"]}
    assert users.keys() == places.keys()
    for found in users.values():
        row = places[found["id"]]
        assert (found["role"], found["status"]) == (row["role"], row["status"])
        assert (found["created"], found["type"]) == (stored(row["created"]), "member")
    assert [user["loginName"] for user in run["users by role"]] == ["ben@harbour.example"]
    ana = run["user"]
    assert (ana["displayName"], ana["currentlyConnected"]) == ("Ana Costa", True)
    assert ana["deviceCount"] == 3  # the router, the laptop and the guest, after the spare was deleted
    assert users[str(harbour.made["people"]["cho"])]["lastSeen"] == ZERO
    assert run.refusal("user gone")[0] == 404


# --- the tailnet -------------------------------------------------------------------------------------------


def test_webhooks(run: Run, harbour: Harbour) -> None:
    made, found = run["create webhook"], run["webhook"]
    assert run["no webhooks"] == []
    assert run["webhooks"] == [found]
    assert "secret" not in found
    assert made == found | {"secret": made["secret"]}
    assert (found["endpointUrl"], found["providerType"]) == ("https://hooks.example.com/vpn", "")
    assert found["subscriptions"] == ["nodeCreated", "subnetIPForwardingNotEnabled"]
    assert found["creatorLoginName"] == "ana@harbour.example"
    assert run["update webhook"]["subscriptions"] == ["categoryTailnetManagement"]
    assert run["rotate webhook"]["secret"] not in (None, made["secret"])
    assert run["test webhook"]
    assert run["delete webhook"]
    assert run.refusal("webhook deleted")[0] == 404
    assert harbour.rows("controlplane.Webhook") == []


def test_contacts(run: Run) -> None:
    assert run["contacts"]["account"] == {"email": "ana@harbour.example", "needsVerification": False}
    assert run["update contact"]
    assert run["contacts updated"]["security"] == {
        "email": "guard@example.com",
        "fallbackEmail": "ana@harbour.example",
        "needsVerification": True,
    }


def test_settings(run: Run, harbour: Harbour) -> None:
    assert run["settings"] == {
        "aclsExternallyManagedOn": False,
        "aclsExternalLink": "",
        "devicesApprovalOn": True,
        "devicesAutoUpdatesOn": False,
        "devicesKeyDurationDays": 90,
        "usersApprovalOn": False,
        "usersRoleAllowedToJoinExternalTailnets": "none",
        "networkFlowLoggingOn": True,
        "regionalRoutingOn": False,
        "postureIdentityCollectionOn": False,
        "httpsEnabled": False,
        "routeSelection": "active-passive-failover",
    }
    assert run["update settings"]
    assert run["settings updated"] == run["settings"] | {
        "devicesKeyDurationDays": 30,
        "usersApprovalOn": True,
    }
    assert run["update nothing"]
    assert run.refusal("update what is fixed")[0] == 409
    (row,) = (one for one in harbour.ask("tailnets") if one["name"] == "harbour")
    assert (row["key_duration_days"], row["users_approval"]) == (30, True)


def test_flow_logs(run: Run, harbour: Harbour) -> None:
    (log,) = run["flow logs"]
    row = harbour.row("controlplane.FlowLog")
    assert (log["nodeId"], log["logged"]) == (run.before["router"]["stable_id"], stored(row["logged"]))
    assert log["virtualTraffic"] == [
        {
            "proto": 6,
            "src": "100.64.0.1:40000",
            "dst": "100.64.0.2:22",
            "txPkts": 5,
            "txBytes": 500,
            "rxBytes": 90,
        }
    ]
    assert log["physicalTraffic"] == [
        {"src": "100.64.0.2:0", "dst": "192.0.2.7:41641", "txPkts": 3, "txBytes": 800}
    ]


def test_tailnets(run: Run, harbour: Harbour) -> None:
    rows = {str(row["id"]): row for row in harbour.ask("tailnets")}
    listed = {one["displayName"] for one in run["tailnets"]}
    assert listed == {"Harbour Company", "brief"}
    made = run["create tailnet"]
    assert made["orgId"] == str(harbour.made["people"]["ana"])
    assert made["dnsName"].startswith(f"{rows[made['id']]['name']}.")
    assert run["devices of the new tailnet"] == []
    assert run["delete tailnet"]
    assert run.refusal("devices of the deleted tailnet")[0] == 401
    assert "brief" not in {row["name"] for row in rows.values()}


# --- who calls, and what is refused ------------------------------------------------------------------------


def test_ways_to_sign_in(run: Run) -> None:
    assert {device["hostname"] for device in run["by oauth"]} == run.before.keys() - {"spare"}
    status, words = run.refusal("by narrow oauth")
    assert (status, "devices:core:read" in words) == (403, True)
    status, words = run.refusal("by wrong oauth")  # OAuth's own library tells of it, not the client
    assert (status, "invalid_client" in words) == (0, True)
    assert run.refusal("by wrong token")[0] == 401
    assert run["named tailnet"] == []
    assert run.refusal("another tailnet")[0] == 404


def test_what_is_not_built_is_not_found(run: Run) -> None:
    calls = [call for call in run.lines if call.startswith("not built: ")]
    assert len(calls) == 6
    for call in calls:
        assert (call, *run.refusal(call)) == (call, 404, "there is nothing at this address")


def test_nothing_else_was_refused(run: Run) -> None:
    wanted = {
        "by narrow oauth",
        "by wrong oauth",
        "by wrong token",
        "another tailnet",
        "client deleted",
        "create federated",
        "deleted",
        "device gone",
        "devices by nonsense",
        "devices of the deleted tailnet",
        "no tags",
        "set policy twice",
        "set wrong policy",
        "update what is fixed",
        "user gone",
        "validate tests",
        "webhook deleted",
    }
    assert {call for call in run.refused if not call.startswith("not built: ")} == wanted
