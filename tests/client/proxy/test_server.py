"""Where proxies listen."""

from __future__ import annotations

import pytest

from client.errors import SetupError
from client.proxy.dialer import Dialer
from client.proxy.server import Listen, make_proxies
from tests.client.proxy.scene import proxy

ONE, TWO = Listen("127.0.0.1", 1055), Listen("127.0.0.1", 1056)


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("localhost:1055", ONE),
        ("127.0.0.1:1055", ONE),
        ("[::1]:1055", Listen("::1", 1055)),
        ("127.9.9.9:1", Listen("127.9.9.9", 1)),
    ],
)
def test_loopback_is_where(text: str, listen: Listen) -> None:
    assert Listen.parse(text, "--socks5-server") == listen


@pytest.mark.parametrize(
    "text", ["", ":1055", "1055", "localhost", "localhost:0", "localhost:99999", "0.0.0.0:1055", "ben:1055"]
)
def test_anything_else_is_refused_by_the_options_name(text: str) -> None:
    with pytest.raises(SetupError, match="--socks5-server"):
        Listen.parse(text, "--socks5-server")


def test_one_address_serves_both() -> None:
    dialer = Dialer(lambda: None)
    assert len(make_proxies(ONE, TWO, dialer)) == 2
    assert [server.listen for server in make_proxies(ONE, ONE, dialer)] == [ONE]
    assert len(make_proxies(None, TWO, dialer)) == 1
    assert not make_proxies(None, None, dialer)


async def test_a_taken_port_is_told() -> None:
    async with proxy() as port:
        again = make_proxies(Listen("127.0.0.1", port), None, Dialer(lambda: None))[0]
        with pytest.raises(SetupError, match="give another port"):
            await again.start()
        await again.close()
