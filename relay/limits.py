"""Every bound of the relay, by name."""

from __future__ import annotations

# reading and writing
ARENA_BYTES = 1024 * 1024
READ_BYTES = 128 * 1024
TLS_READ_BYTES = 64 * 1024
MAX_WEBSOCKET_MESSAGE = 1024 * 1024
SEND_BYTES = 128 * 1024  # one write below TLS or WebSocket; also how much unsent data the kernel may hold
MAX_IOV = 512
QUEUE_BYTES = 192 * 1024  # waiting for one slow client, disco apart
DISCO_QUEUE_BYTES = 32 * 1024
WRITE_STALL_SECONDS = 2.0
MESH_WRITE_STALL_SECONDS = 30.0
USER_TIMEOUT_MS = 15_000

# clients
MAX_CONTROL_FRAME = 64 * 1024
MAX_ROUTES_CACHED = 4096
MAX_SENT_TO = 16_384
MAX_CONNECTIONS_PER_KEY = 16
GONE_BURST = 3
GONE_PER_SECOND = 1.0
KEEPALIVE_SECONDS = 60.0
KEEPALIVE_SPREAD = 5.0
TICK_SECONDS = 1.0

# connecting
BACKLOG = 1024
MAX_ACCEPTS_PER_ROUND = 32
MAX_HANDSHAKES = 8192  # connections that are not admitted yet
HANDSHAKE_SECONDS = 10.0  # each step of it
TLS_THREADS = 2
MAX_HTTP_HEAD_BYTES = 16 * 1024
MAX_REQUESTS_PER_CONNECTION = 64
SMALL_HELLO_BYTES = 4096
MAX_LARGE_HELLOS = 64  # clients at once whose ClientInfo is larger than the above
OUT_OF_FILES_SECONDS = 1.0  # no accept for this long when the process has no file left

# admission
ADMISSION_SECONDS = 2.0
MAX_ADMISSION_WAITERS = 1000
MAX_LINK_MESSAGE = 64 * 1024 * 1024
MAX_KEYS_FILE = 128 * 1024 * 1024
SAVE_SECONDS = 1.0  # changes of the list are written together
STATS_SECONDS = 5.0
LINK_OPEN_SECONDS = 10.0
LINK_BACKOFF_FIRST = 0.5
LINK_BACKOFF_MAX = 15.0

# the rest
STUN_BATCH = 64
STUN_MAX_PACKET = 1500
MESH_RETRY_SECONDS = 5.0
MESH_SILENCE_SECONDS = 120.0
DRAIN_SECONDS = 2.0
STATUS_SECONDS = 5.0
