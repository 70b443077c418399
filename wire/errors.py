"""The error tree of the wire package: everything a peer's bytes can cause is one of these."""

from __future__ import annotations


class WireError(Exception):
    """The peer sent what its protocol does not allow. ``code`` is stable, the text is for people."""

    code = "wire"


class KeyFormatError(WireError):
    """A key's text or length is wrong."""

    code = "key-format"


class HandshakeError(WireError):
    """A Noise, DERP or HTTP handshake message is malformed or does not authenticate."""

    code = "handshake"


class DecryptError(WireError):
    """A sealed box or record does not open with the keys at hand."""

    code = "decrypt"


class FrameError(WireError):
    """A length, type or framing rule is broken."""

    code = "frame"


class MessageError(WireError):
    """A well-framed message has content that cannot be used."""

    code = "message"


class SessionError(WireError):
    """The session is used out of order, or its HTTP/2 layer was violated."""

    code = "session"
