"""Both ends of a session joined in memory, and a client end that may say anything."""

from __future__ import annotations

import hpack
from hyperframe.frame import Frame, SettingsFrame, WindowUpdateFrame

from tests.wire.recordings import MACHINE, SERVER, SERVER_EPHEMERAL, VERSION
from wire.keys import ChallengePrivate
from wire.noise import Initiator
from wire.session import ClientSession, DataReceived, Event, RequestReceived, ServerSession

CHALLENGE = ChallengePrivate.generate(bytes(range(32))).public()
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def server_session(*, early: bool = True, max_body: int = 1024 * 1024) -> ServerSession:
    challenge = CHALLENGE if early else None
    return ServerSession(SERVER, ephemeral=SERVER_EPHEMERAL, challenge=challenge, max_body=max_body)


class Pair:
    """A client and a server session after their handshake; bytes move when :meth:`pump` is called."""

    def __init__(self, *, early: bool = True, max_body: int = 1024 * 1024) -> None:
        self.client = ClientSession(MACHINE, SERVER.public(), VERSION, bytes(32))
        self.server = server_session(early=early, max_body=max_body)
        self.server.receive_handshake(self.client.initiation())
        first = self.server.data_to_send()
        self.client.receive_handshake(first[:51])
        self.client_events: list[Event] = self.client.receive_data(first[51:])
        self.server_events: list[Event] = []
        self.pump()

    def pump(self) -> None:
        """Move bytes both ways until neither side has any."""
        while True:
            up, down = self.client.data_to_send(), self.server.data_to_send()
            if not up and not down:
                return
            if up:
                self.server_events += self.server.receive_data(up)
            if down:
                self.client_events += self.client.receive_data(down)

    def ask(self, path: str, body: bytes = b"") -> tuple[int, RequestReceived]:
        """A request that has reached the server; its stream id and what the server saw."""
        stream_id = self.client.request("POST", path, body)
        self.pump()
        seen = [e for e in self.server_events if isinstance(e, RequestReceived) and e.stream_id == stream_id]
        return stream_id, seen[0]

    def body_of(self, stream_id: int) -> bytes:
        """All that the client has got of an answer."""
        pieces = [e for e in self.client_events if isinstance(e, DataReceived) and e.stream_id == stream_id]
        return b"".join(piece.data for piece in pieces)


class RawClient:
    """A client that has done the handshake and then sends whatever frames it is given."""

    def __init__(self, *, window: int = 65535, max_body: int = 1024 * 1024) -> None:
        initiator = Initiator(MACHINE, SERVER.public(), VERSION, bytes(32))
        self.server = server_session(early=False, max_body=max_body)
        self.server.receive_handshake(initiator.initiation())
        answer = self.server.data_to_send()
        self.transport = initiator.finish(answer[:51])
        self.transport.receive(answer[51:])
        self.encoder = hpack.Encoder()
        settings = SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: window})
        self.send_bytes(PREFACE + settings.serialize() + SettingsFrame(0, flags=["ACK"]).serialize())

    def send(self, *frames: Frame) -> list[Event]:
        return self.send_bytes(b"".join(frame.serialize() for frame in frames))

    def send_bytes(self, data: bytes) -> list[Event]:
        """Feed plaintext HTTP/2 bytes to the server."""
        return self.server.receive_data(self.transport.encrypt(data))

    def read(self) -> bytes:
        """The HTTP/2 bytes that the server has to send."""
        return self.transport.receive(self.server.data_to_send())

    def frames(self) -> list[Frame]:
        """The frames that the server has to send."""
        data, found = self.read(), []
        while data:
            frame, length = Frame.parse_frame_header(memoryview(data[:9]))
            frame.parse_body(memoryview(data[9 : 9 + length]))
            found.append(frame)
            data = data[9 + length :]
        return found

    def open_window(self, stream_id: int, by: int) -> list[Event]:
        return self.send(WindowUpdateFrame(stream_id, window_increment=by))

    def head(self, path: str = "/machine/map", **more: str) -> bytes:
        """An encoded request head."""
        fields = {":method": "POST", ":scheme": "https", ":authority": "unused", ":path": path, **more}
        return bytes(self.encoder.encode(list(fields.items())))
