"""The fake engine keeps the promises of the real ones."""

from __future__ import annotations

import pytest

from client.engine.fake import FakeEngine
from client.errors import EngineError
from client.wireguard import PeerConfig
from wire.keys import NodePrivate

KEY = NodePrivate.generate(bytes(range(32)))
PEER = NodePrivate.generate(bytes(range(1, 33))).public()


async def test_a_live_endpoint_survives_a_reconciliation() -> None:
    engine = FakeEngine()
    assert not await engine.start()
    await engine.set_key(KEY, listen_port=5, fwmark=1)
    await engine.set_peers([PeerConfig(key=PEER, allowed_ips=("a/1",), endpoint=("192.0.2.1", 1))])
    await engine.set_endpoint(PEER, ("192.0.2.2", 2))
    engine.observe(PEER, received=5, last_handshake=9.0)
    await engine.set_peers([PeerConfig(key=PEER, allowed_ips=("b/1",), endpoint=("192.0.2.3", 3))])
    peer = (await engine.status()).peers[PEER]
    assert (peer.endpoint, peer.rx_bytes, peer.last_handshake) == (("192.0.2.2", 2), 5, 9.0)
    assert peer.allowed_ips == {"b/1"}
    await engine.set_peers([])
    await engine.set_endpoint(PEER, ("192.0.2.9", 9))
    assert not (await engine.status()).peers


async def test_letting_go_keeps_the_tunnel_and_removing_does_not() -> None:
    engine = FakeEngine()
    await engine.start()
    await engine.close(keep=True)
    assert await engine.start()
    await engine.close(keep=False)
    with pytest.raises(EngineError):
        await engine.status()
