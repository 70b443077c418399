"""The server behind Debian's Caddy and nginx, each with the example of ``deploy/``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.certificates import Authority
from tests.lab.net import Lab, LabError, Namespace, Router
from tests.lab.official import OfficialNode
from tests.lab.probe import Probe
from tests.lab.processes import CHECKOUT, Daemon, clean_environment, wait_for
from tests.lab.server import PORT, Server
from tests.lab.traffic import reachable
from tests.lab.trenza import TrenzaNode
from tests.needs import missing, need

pytestmark = pytest.mark.root

NAME = "vpn.example.com"  # as the examples have it
UPSTREAM = "127.0.0.1:8080"
ROUNDS = 100


@dataclass
class Proxied:
    """The server and what its clients dial instead of it."""

    server: Server
    probe: Probe
    authority: Authority
    router: Router


def caddy(host: Namespace, upstream: str, certificate: str, key: str) -> Daemon:
    """Caddy with the example, except for the certificate (it would ask an authority on the internet)."""
    text = (CHECKOUT / "deploy/caddy/Caddyfile").read_text().replace(UPSTREAM, upstream)
    path = host.folder / "Caddyfile"
    path.write_text(text.replace(f"{NAME} {{", f"{NAME} {{\n\ttls {certificate} {key}"))
    environment = clean_environment(HOME=str(host.folder), XDG_DATA_HOME=str(host.folder))
    command = ["caddy", "run", "--config", str(path), "--adapter", "caddyfile"]
    return Daemon(host, command, host.folder / "caddy.log", environment)


def nginx(host: Namespace, upstream: str, certificate: str, key: str) -> Daemon:
    """nginx with the distribution's own nginx.conf and the example as its only site."""
    text = (CHECKOUT / "deploy/nginx/trenza.conf").read_text().replace(UPSTREAM, upstream)
    text = text.replace(f"/etc/ssl/{NAME}.pem", certificate).replace(f"/etc/ssl/{NAME}.key", key)
    private = {
        place: host.folder / place.strip("/").replace("/", "-")
        for place in ("/etc/nginx/sites-enabled", "/run", "/var/log/nginx", "/var/lib/nginx")
    }
    for folder in private.values():
        folder.mkdir()
    (private["/etc/nginx/sites-enabled"] / "trenza.conf").write_text(text)
    return Daemon(host, ["nginx", "-g", "daemon off;"], host.folder / "nginx.log", private=private)


PROXIES = {"caddy": caddy, "nginx": nginx}


@pytest.fixture(scope="module")
def proxied() -> Iterator[dict[str, Proxied]]:
    with Lab() as lab:
        proxies = {name: lab.host(name) for name in PROXIES}
        authority = Authority(lab.folder / "authority")
        pair = [str(path) for path in authority.issue(NAME)]
        trusted = ",".join(host.address4 for host in proxies.values())
        host, desk, router = lab.host("server"), lab.host("desk"), lab.router("home")
        settings = {"TRENZA_TRUSTED_PROXIES": trusted, "TRENZA_RELAY_HOST": host.address4}
        server = Server(host, TRENZA_URL=f"https://{NAME}", **settings).start()
        upstream = f"{host.address4}:{PORT}"
        try:
            for name, proxy in proxies.items():
                if not missing(name):
                    PROXIES[name](proxy, upstream, *pair).start()
            yield {
                name: Proxied(
                    server,
                    Probe(desk, proxy.address4, 443, NAME, authority.context()),
                    authority,
                    router,
                )
                for name, proxy in proxies.items()
            }
        finally:
            server.stop()


@pytest.fixture(params=PROXIES)
def behind(proxied: dict[str, Proxied], request: pytest.FixtureRequest) -> Proxied:
    name = str(request.param)
    need(name)
    probe = proxied[name].probe

    def answers() -> bool:
        try:
            return probe.get("/healthz")[0] == 200
        except OSError as error:
            raise LabError(str(error)) from error

    wait_for(f"{name} answers", answers)
    return proxied[name]


def test_pages_and_control_connections_take_turns_without_a_failure(behind: Proxied) -> None:
    """GET /, then an upgrade, a hundred times: proxies reuse the page's connection for the upgrade."""
    key = behind.probe.server_key()
    for _ in range(ROUNDS):
        status, _body = behind.probe.get("/")
        assert status == 302
        behind.probe.upgrade(key)


def test_an_upgrade_follows_a_page_on_the_same_connection(behind: Proxied) -> None:
    key = behind.probe.server_key()
    for _ in range(ROUNDS // 4):
        connection = behind.probe.dial()
        assert behind.probe.get("/healthz", connection)[0] == 200
        behind.probe.upgrade(key, connection)


def test_websocket_control_connections_pass(behind: Proxied) -> None:
    key = behind.probe.server_key()
    for _ in range(ROUNDS):
        assert behind.probe.get("/")[0] == 302
        behind.probe.websocket(key)


def test_relay_links_pass(behind: Proxied) -> None:
    token = (behind.server.data / "relay.token").read_text().strip()
    for _ in range(ROUNDS // 4):
        behind.probe.relay_link(token)


def test_people_sign_in_through_the_proxy(behind: Proxied) -> None:
    """TLS ends at the proxy; cookies, redirects and the form's origin check still hold."""
    link = behind.server.sign_in_link().removeprefix(f"https://{NAME}")
    status, _ = behind.probe.get(link)
    assert status == 302
    assert behind.probe.get(link)[0] == 410


def _joined(behind: Proxied, node: TrenzaNode | OfficialNode) -> TrenzaNode | OfficialNode:
    node.start()
    node.up(behind.server.url, auth_key=behind.server.auth_key())
    return node


def _host(behind: Proxied, name: str) -> Namespace:
    """A host that knows the proxy under the server's name."""
    host = behind.router.host(f"{name}{behind.probe.address.rpartition('.')[2]}")
    host.knows(behind.probe.address, NAME)
    return host


def test_own_clients_join_through_the_proxy(behind: Proxied) -> None:
    trust = {"SSL_CERT_FILE": str(behind.authority.path)}
    one = _joined(behind, TrenzaNode(_host(behind, "ws"), **trust))
    other = _joined(behind, TrenzaNode(_host(behind, "up"), "--carrier=upgrade", **trust))
    assert [node.status()["Control"]["Carrier"] for node in (one, other)] == ["websocket", "upgrade"]
    reachable(one.namespace, other.address())


@pytest.mark.needs("tailscaled", "tailscale")
def test_official_clients_join_through_the_proxy(behind: Proxied) -> None:
    trust = {"SSL_CERT_FILE": str(behind.authority.path)}
    one = _joined(behind, OfficialNode(_host(behind, "off"), **trust))
    other = _joined(behind, TrenzaNode(_host(behind, "own"), **trust))
    reachable(other.namespace, one.address())
