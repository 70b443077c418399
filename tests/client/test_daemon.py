"""``trenzad`` as a process: what it refuses, in one line and without a trace, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client.daemon import Config
from client.errors import ClientError
from client.localapi.client import DEFAULT_SOCKET, LocalClient
from client.oauthkey import OAuthKey
from client.proxy.server import Listen

PATIENCE_SECONDS = 20.0
# Its own network, processes' view of /run and /dev/net: nothing of the machine is touched.
ALONE = ["unshare", "--net", "--mount", "sh", "-c", 'mount -t tmpfs none /run; {prepare} exec "$@"', "sh"]


class TestConfig:
    def test_the_defaults_are_the_packages(self) -> None:
        config = Config.read([], {}, uid=0)
        assert (str(config.state), str(config.socket), config.tun, config.port, str(config.carrier)) == (
            "/var/lib/trenza",
            DEFAULT_SOCKET,
            "trenza0",
            0,
            "websocket",
        )

    def test_users_have_folders_of_their_own(self) -> None:
        session = {"XDG_RUNTIME_DIR": "/run/user/1000", "HOME": "/home/ada"}
        config = Config.read([], session, uid=1000)
        assert str(config.state) == "/home/ada/.local/state/trenza"
        assert str(config.socket) == "/run/user/1000/trenza/trenzad.sock"
        config = Config.read([], {"XDG_STATE_HOME": "/srv/ada", "HOME": "/home/ada"}, uid=1000)
        assert str(config.socket) == "/srv/ada/trenza/trenzad.sock"

    def test_no_interface_is_asked_for_by_a_word(self) -> None:
        config = Config.read(["--tun", "userspace", "--socks5-server", "localhost:1055"], {})
        assert config.userspace
        assert config.socks == Listen("127.0.0.1", 1055)
        assert not Config.read(["--tun", "tz0"], {}, uid=1000).userspace

    def test_the_environment_names_server_and_key(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_text("tskey-auth-x\n")
        environment = {
            "TRENZA_CONTROL_URL": "https://vpn.example.com/",
            "TRENZA_AUTH_KEY": f"file:{tmp_path}/key",
        }
        config = Config.read(["--carrier", "upgrade"], environment)
        assert (config.control_url, config.auth_key) == ("https://vpn.example.com", "tskey-auth-x")
        assert "tskey" not in repr(config)

    def test_the_environments_key_may_be_an_oauth_clients_secret(self) -> None:
        environment = {
            "TRENZA_AUTH_KEY": "tskey-client-a-b?ephemeral=false&baseURL=https://vpn.example.com/",
            "TRENZA_ADVERTISE_TAGS": "tag:ci, tag:web,",
        }
        config = Config.read([], environment)
        assert config.auth_key == OAuthKey("tskey-client-a-b", False, base_url="https://vpn.example.com")
        assert config.tags == ("tag:ci", "tag:web")
        assert "tskey" not in repr(config)

    @pytest.mark.parametrize(
        ("arguments", "environment"),
        [
            (["--tun", "a/b"], {}),
            (["--tun", "x" * 16], {}),
            (["--socks5-server", "0.0.0.0:1055"], {}),
            (["--outbound-http-proxy-listen", "localhost"], {}),
            (["--port", "70000"], {}),
            ([], {"TRENZA_CONTROL_URL": "vpn.example.com"}),
            ([], {"TRENZA_AUTH_KEY": "file:/nonexistent"}),
            ([], {"TRENZA_AUTH_KEY": "tskey-client-a-b?colour=red"}),
            ([], {"TRENZA_ADVERTISE_TAGS": "ci"}),
        ],
    )
    def test_what_cannot_be_is_refused(self, arguments: list[str], environment: dict[str, str]) -> None:
        with pytest.raises(ClientError):
            Config.read(arguments, environment)


class Trenzad:
    """A daemon in a namespace of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.socket = folder / "sock"
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *options: str, prepare: str = "", prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        arguments = ["--state", str(self.state), "--socket", str(self.socket), *options]
        alone = [part.format(prepare=prepare) for part in ALONE]
        process = subprocess.Popen(
            [*alone, *prefix, sys.executable, "-m", "client.daemon", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("TRENZA_")},
        )
        self.processes.append(process)
        return process

    def refuses(self, *options: str, prepare: str = "", prefix: tuple[str, ...] = ()) -> str:
        """Its one line, when it does not start."""
        process = self.start(*options, prepare=prepare, prefix=prefix)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 1, errors
        lines = errors.strip().splitlines()
        assert len(lines) == 1, errors
        assert lines[0].startswith("trenzad: ")
        return lines[0]

    def ready(self) -> LocalClient:
        wait_for(self.socket.exists)
        return LocalClient(str(self.socket))

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            if process.stderr is not None and not process.stderr.closed:
                process.communicate()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def trenzad(tmp_path: Path) -> Iterator[Trenzad]:
    daemon = Trenzad(tmp_path)
    yield daemon
    daemon.close()


@pytest.mark.root
class TestRefusals:
    def test_without_root(self, trenzad: Trenzad) -> None:
        drop = ("setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-all", "--reuid=0")
        line = trenzad.refuses(prefix=drop)
        assert "needs root" in line
        assert not trenzad.state.exists()

    def test_where_user_namespaces_are_forbidden(self, trenzad: Trenzad) -> None:
        """The setting is of the namespace that the test makes, not of the machine."""
        script = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
        forbid = ("unshare", "-Ur", "sh", "-c", script, "sh")
        line = trenzad.refuses("--tun", "userspace", prefix=forbid)
        assert "sysctl -w user.max_user_namespaces" in line
        assert not trenzad.socket.exists()

    def test_without_tun(self, trenzad: Trenzad) -> None:
        line = trenzad.refuses(prepare="mount -t tmpfs none /dev/net;")
        if "/dev/net/tun is missing" not in line:
            pytest.skip("this kernel has WireGuard: no TUN is needed")
        assert not trenzad.socket.exists()

    def test_with_a_taken_port(self, trenzad: Trenzad) -> None:
        code = "import socket, subprocess, sys; s = socket.socket(2, 2); s.bind(('', 41641)); "
        code += "sys.exit(subprocess.call(sys.argv[1:]))"
        line = trenzad.refuses("--port", "41641", prefix=(sys.executable, "-c", code))
        assert "UDP port 41641 is taken" in line

    def test_with_an_interface_of_somebody_else(self, trenzad: Trenzad) -> None:
        line = trenzad.refuses("--tun", "tz7", prepare="ip link add tz7 type bridge;")
        assert "tz7 exists that is not Trenza's" in line

    @pytest.mark.parametrize("content", ["", "{", '{"format": 9}', "nonsense"])
    def test_with_a_damaged_identity(self, trenzad: Trenzad, content: str) -> None:
        trenzad.state.mkdir()
        (trenzad.state / "node.json").write_text(content)
        line = trenzad.refuses()
        assert f"{trenzad.state}/node.json is damaged" in line
        assert (trenzad.state / "node.json").read_text() == content

    def test_with_the_state_of_another(self, trenzad: Trenzad) -> None:
        trenzad.start()
        trenzad.ready()
        line = trenzad.refuses("--socket", str(trenzad.folder / "other"))
        assert "another trenzad already runs on the state folder" in line

    def test_with_the_socket_of_another(self, trenzad: Trenzad) -> None:
        trenzad.start()
        trenzad.ready()
        assert "another trenzad listens" in trenzad.refuses("--state", str(trenzad.folder / "other"))

    def test_with_a_socket_that_cannot_be(self, trenzad: Trenzad) -> None:
        (trenzad.folder / "file").write_text("")
        assert "give another --socket" in trenzad.refuses("--socket", str(trenzad.folder / "file" / "sock"))


@pytest.mark.root
class TestLife:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_cleanly(self, trenzad: Trenzad, number: signal.Signals) -> None:
        process = trenzad.start()
        client = trenzad.ready()
        assert client.get("status")["BackendState"] == "NeedsLogin"
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
        assert not trenzad.socket.exists()

    def test_an_identity_is_made_once(self, trenzad: Trenzad) -> None:
        def machine_key() -> str:
            return str(json.loads((trenzad.state / "node.json").read_text())["machine"])

        first = trenzad.start()
        trenzad.ready()
        before = machine_key()
        first.terminate()
        first.communicate(timeout=PATIENCE_SECONDS)
        trenzad.start()
        trenzad.ready()
        assert machine_key() == before

    def test_a_killed_daemons_socket_is_no_obstacle(self, trenzad: Trenzad) -> None:
        first = trenzad.start()
        trenzad.ready()
        first.kill()
        first.communicate()
        assert trenzad.socket.exists()
        trenzad.start()

        def answers() -> bool:
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(trenzad.socket))
            except OSError:
                return False
            return True

        wait_for(answers)
