"""``trenza ssh wait metrics bugreport switch`` on real nodes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import World
from tests.lab.net import ETC_NETNS, Done, run
from tests.lab.processes import clean_environment, wait_for
from tests.lab.test_paths import introduce
from tests.lab.traffic import ping, reachable, unreachable
from tests.lab.trenza import TRENZA, TrenzaNode

pytestmark = pytest.mark.root


def make_key(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "somebody@somewhere", "-f", path)
    return path


class SSHServer:
    """An SSH server on a host of the lab, in whose ``/root`` only ``visitor``'s key lies."""

    def __init__(self, node: TrenzaNode, key: Path, visitor: Path) -> None:
        home = node.namespace.folder / "root"
        allowed = home / ".ssh" / "authorized_keys"
        allowed.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
        allowed.write_text(visitor.with_suffix(".pub").read_text())
        converted = node.namespace.folder / "hostkey"
        run("dropbearconvert", "openssh", "dropbear", key, converted)
        self.process = node.namespace.spawn(
            "dropbear", "-F", "-E", "-s", "-r", converted, "-p", "22", "-P", home / "pid",
            private={"/root": home}, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for("the SSH server listens", lambda: node.namespace.run("ss", "-Hltn", "sport = :22").stdout)


def ssh(node: TrenzaNode, identity: Path, *arguments: str) -> Done:
    """``trenza ssh`` that keeps what it knows in the node's own folder."""
    words = [f"--socket={node.socket}", "ssh", arguments[0], "-i", str(identity), *arguments[1:]]
    settings = clean_environment(XDG_CONFIG_HOME=str(node.namespace.folder))
    return node.namespace.run(*TRENZA, *words, private=node.private, check=False, environment=settings)


@pytest.mark.needs("dropbear")
def test_ssh_knows_a_device_by_the_key_that_it_told_the_server(world: World, tmp_path: Path) -> None:
    inn, guest = world.trenza("inn", world.easy1, start=False), world.trenza("guest", world.easy2)
    told = make_key(ETC_NETNS / inn.namespace.name / "ssh" / "ssh_host_ed25519_key")
    identity = make_key(tmp_path / "id")
    inn.start()
    for node in (inn, guest):
        world.join(node)
    introduce(inn, guest)
    wait_for("the key is known", lambda: guest.peer("inn").get("sshHostKeys"))
    server = SSHServer(inn, told, identity)
    for target in ("root@inn", f"root@{inn.address(4)}", f"root@{inn.address(6)}"):
        done = ssh(guest, identity, target, "echo", "$SSH_CONNECTION")
        assert done.stdout.startswith(guest.address(4)), done.stderr
    server.process.kill()
    server.process.wait()
    SSHServer(inn, make_key(tmp_path / "other"), identity)
    refused = ssh(guest, identity, "root@inn", "true")
    assert refused.returncode != 0
    assert "Host key verification failed" in refused.stderr


def numbers(text: str) -> dict[str, float]:
    """The samples of a metrics text."""
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def test_wait_metrics_and_bugreport(world: World, tmp_path: Path) -> None:
    una, vera = world.trenza("una", world.easy1), world.trenza("vera", world.blocked)
    waiting = una.spawn("wait", "--timeout=60s")
    assert una.cli("wait", "--timeout=500ms", check=False).returncode == 1
    for node in (una, vera):
        world.join(node)
    assert waiting.wait(30) == 0
    introduce(una, vera)
    before = numbers(una.cli("metrics").stdout)
    assert before["trenzad_control_connected"] == 1
    reachable(una.namespace, vera.address())
    assert ping(una.namespace, vera.address(), count=5).lost == 0
    file = tmp_path / "trenza.prom"
    una.cli("metrics", "write", str(file))
    after = numbers(file.read_text())
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown['trenzad_inbound_bytes_total{path="derp"}'] > 500
    assert grown['trenzad_outbound_bytes_total{path="derp"}'] > 500
    assert after['trenzad_peers_active{path="derp"}'] >= 1
    marker = una.cli("bugreport", "--diagnose", "nothing works").stdout.strip()
    assert re.fullmatch(r"BUG-\w+-\d{14}Z-[0-9a-f]{16}", marker)
    log = una.daemon.log.read_text()
    assert marker in log
    assert "note: nothing works" in log
    keys = (una.state_folder / "node.json").read_text()
    for secret in re.findall(r"privkey:([0-9a-f]{64})", keys):
        assert secret not in log


def test_one_device_in_two_tailnets(world: World) -> None:
    """Over there nobody of here is seen; back here everything is as it was."""
    server = world.server
    server.manage("createtailnet", "elsewhere", "--owner", "xaver@example.com")
    wim, yves = world.trenza("wim", world.easy1), world.trenza("yves", world.easy2)
    for node in (wim, yves):
        world.join(node)
    introduce(wim, yves)
    here = wim.addresses()
    reachable(wim.namespace, yves.address())
    key = server.auth_key(tailnet="elsewhere")
    wim.cli("login", f"--login-server={server.url}", f"--auth-key={key}", "--hostname=wim2", "--timeout=50s")
    assert not set(here) & set(wim.addresses())
    assert not wim.knows("yves")
    assert "wim2" in server.nodes(tailnet="elsewhere")
    unreachable(yves.namespace, here[0])
    listed = accounts(wim)
    assert [profile["selected"] for profile in listed] == [False, True]
    assert wim.cli("switch", listed[0]["id"]).stdout.splitlines()[-1] == "Success."
    assert wim.addresses() == here
    wim.sees("yves")
    reachable(yves.namespace, here[0])
    wim.stop()
    wim.start()
    wim.wait_state("Running")
    assert wim.addresses() == here
    assert len(accounts(wim)) == 2


def accounts(node: TrenzaNode) -> list[dict[str, Any]]:
    return list(json.loads(node.cli("switch", "--list", "--json").stdout))
