"""TLS over bytes, without a socket, so that a relay's hot path reads and writes in its own rhythm."""

from __future__ import annotations

import functools
import hashlib
import hmac
import ssl

from client.errors import ClientError
from wire.derpmap import DERPNode

READ_BYTES = 64 * 1024


class RelayError(ClientError):
    """A relay cannot be reached, or is not what the DERP map says."""

    code = "relay"


@functools.cache
def _verifying() -> ssl.SSLContext:
    """Against the host's certificate authorities. No ALPN: it might choose HTTP/2."""
    return ssl.create_default_context()


@functools.cache
def _unverified() -> ssl.SSLContext:
    """For a relay whose certificate is compared by hand (or not at all, where the map says so)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class TlsChannel:
    """The client's end towards one relay. Bad TLS raises :class:`ssl.SSLError`, which is an ``OSError``."""

    def __init__(self, node: DERPNode) -> None:
        self._pin = node.pinned_sha256
        trusting = self._pin is not None or node.insecure_for_tests
        name = node.host_name if self._pin is not None else node.cert_name or node.host_name
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ended = False
        context = _unverified() if trusting else _verifying()
        try:
            self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        except ValueError as error:
            raise RelayError(f"{name[:255]!r} is not a host name a relay can have") from error

    def handshake(self) -> bool:
        """One step; ``True`` = done. Raises :class:`RelayError` when it is not the relay it should be."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        if self._pin is not None:
            check_pin(self._object.getpeercert(binary_form=True) or b"", self._pin)
        return True

    def receive(self, data: bytes | memoryview) -> None:
        """Ciphertext from the socket."""
        self._incoming.write(data)

    def read(self) -> bytes:
        """The plaintext of all whole records that came in; :attr:`ended` tells of a goodbye."""
        chunks = []
        try:
            while chunk := self._object.read(READ_BYTES):
                chunks.append(chunk)
            self.ended = True
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def write(self, data: bytes) -> None:
        self._object.write(data)

    def pending(self) -> bytes:
        """Ciphertext for the socket."""
        return self._outgoing.read()


def check_pin(certificate: bytes, pin: str) -> None:
    """Raises :class:`RelayError` unless the DER ``certificate`` has this SHA-256 (hex).

    Its dates do not matter: the control server names the very certificate, and a clock that is off must not
    cut a node off from its relay.
    """
    if not hmac.compare_digest(hashlib.sha256(certificate).hexdigest(), pin.lower()):
        raise RelayError("the relay shows another certificate than the control server named")
