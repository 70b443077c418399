"""What the host lacks is said in one line that names the remedy."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from client.engine import choose_engine
from client.engine.host import require_capabilities, require_free_port, require_tun
from client.engine.kernel import KernelEngine
from client.engine.wireguard_go import WireguardGoEngine
from client.errors import SetupError

ALL = "Name:\ttrenzad\nCapEff:\t000001ffffffffff\n"
NET_ADMIN_ONLY = "CapEff:\t0000000000001000\n"
NET_ADMIN_AND_RAW = "CapEff:\t0000000000003000\n"


def test_root_or_both_capabilities_are_enough() -> None:
    require_capabilities(ALL)
    require_capabilities(NET_ADMIN_AND_RAW)


@pytest.mark.parametrize("status", ["CapEff:\t0000000000000000\n", NET_ADMIN_ONLY, ""])
def test_without_them_the_line_says_what_to_do(status: str) -> None:
    with pytest.raises(SetupError, match=r"needs root \(CAP_NET_ADMIN and CAP_NET_RAW\).*sudo") as error:
        require_capabilities(status)
    assert "\n" not in str(error.value)


def test_a_missing_tun_device_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is missing; run: modprobe tun"):
        require_tun(tmp_path / "tun")


def test_a_closed_tun_device_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"cannot be opened \(Is a directory\)"):
        require_tun(tmp_path)


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "::", "::1"])
def test_a_taken_port_is_named_whatever_address_holds_it(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as holder:
        holder.bind((host, 0))
        port = holder.getsockname()[1]
        with pytest.raises(SetupError, match=f"UDP port {port} is taken by another program"):
            require_free_port(port)
    require_free_port(port)


@pytest.mark.root
def test_the_kernels_wireguard_is_preferred_and_its_absence_noticed() -> None:
    engine = choose_engine("trenzatest0")
    assert isinstance(engine, KernelEngine | WireguardGoEngine)
    assert engine.interface == "trenzatest0"


@pytest.mark.root
async def test_choosing_works_beside_a_running_loop() -> None:
    assert choose_engine("trenzatest0").interface == "trenzatest0"


@pytest.mark.root
def test_without_any_wireguard_the_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none() -> bool:
        return False

    monkeypatch.setattr("client.engine._kernel_has_wireguard", none)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(SetupError, match="apt install wireguard-go"):
        choose_engine("trenzatest0")
