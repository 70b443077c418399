"""The folder of files that peers sent, until somebody fetches them; partial ones wait there to be resumed.

Everything here blocks: the daemon calls it from threads. A file appears under its name only when it is whole
and on disk, and never in place of another.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from client.errors import ClientError
from client.peerapi.names import check_name, is_from, is_partial, next_name, partial_name

BLOCK_BYTES = 64 * 1024  # of the protocol: what one hash covers
ALGORITHM = "sha256"
PARTIAL_SECONDS = 3600.0
KEEP_FREE_BYTES = 64 * 1024 * 1024
MAX_WAITING = 10_000
MAX_PARTIALS = 64  # of one sender
MAX_TRIES = 1000


class InboxError(ClientError):
    """The folder cannot be used, or has no such file."""

    code = "inbox"


class FileBusy(InboxError):
    """This peer is sending this file already."""

    code = "file-busy"


class NoRoom(InboxError):
    """The disk or the inbox is full."""

    code = "no-room"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file that is there, its size in bytes."""

    name: str
    size: int

    def to_json(self) -> dict[str, Any]:
        return {"Name": self.name, "Size": self.size}


class Inbox:
    """``folder`` says where: it changes with the account. Every method raises :class:`InboxError`."""

    def __init__(self, folder: Callable[[], Path]) -> None:
        self._folder = folder
        self._busy: set[tuple[Path, str]] = set()
        self._lock = threading.Lock()

    def waiting(self) -> list[Waiting]:
        """What may be fetched, by name."""
        with _in_words("read the inbox"):
            return sorted(
                (Waiting(entry.name, entry.stat().st_size) for entry in self._files(is_partial_file=False)),
                key=lambda file: file.name,
            )

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """A waiting file and its size."""
        with _in_words(f"open {name!r}"):
            file = _open(self._folder() / check_name(name), os.O_RDONLY)
            return file, os.fstat(file.fileno()).st_size

    def delete(self, name: str) -> None:
        with _in_words(f"delete {name!r}"):
            (self._folder() / check_name(name)).unlink()

    def partials(self, sender: str) -> list[str]:
        """The names, with their endings, of what ``sender`` began to send."""
        with _in_words("read the inbox"):
            names = [entry.name for entry in self._files(is_partial_file=True)]
            return sorted(name for name in names if is_from(name, sender))

    def partial(self, sender: str, name: str) -> BinaryIO | None:
        """What there is of a file that ``sender`` began to send; ``None`` for nothing."""
        with _in_words(f"open {name!r}"):
            try:
                return _open(self._folder() / partial_name(name, sender), os.O_RDONLY)
            except FileNotFoundError:
                return None

    def begin(self, sender: str, name: str, offset: int, size: int | None) -> Incoming:
        """Take a file from ``offset`` on; ``size`` bytes are to come, ``None`` = unknown."""
        with _in_words("take a file"):
            folder = self._folder()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = folder / partial_name(name, sender)
            self._require_room(folder, path, sender, size or 0)
            with self._lock:
                if (key := (folder, path.name)) in self._busy:
                    raise FileBusy("file already exists: it is being sent")
                self._busy.add(key)
            try:
                return Incoming(self, path, name, _open_partial(path, offset))
            except BaseException:
                self._busy.discard(key)
                raise

    def sweep(self, now: float) -> None:
        """Remove partial files that nobody resumed for an hour; ``now`` in seconds as file times are."""
        with _in_words("clean the inbox"):
            for entry in self._files(is_partial_file=True):
                old = entry.stat().st_mtime < now - PARTIAL_SECONDS
                if old and (Path(entry.path).parent, entry.name) not in self._busy:
                    os.unlink(entry.path)

    def let_go(self, path: Path) -> None:
        """A transfer is over."""
        self._busy.discard((path.parent, path.name))

    def _files(self, *, is_partial_file: bool) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self._folder()) as entries:
                for entry in entries:
                    if is_partial(entry.name) is is_partial_file and entry.is_file(follow_symlinks=False):
                        yield entry
        except FileNotFoundError:  # no file ever came
            return

    def _require_room(self, folder: Path, path: Path, sender: str, size: int) -> None:
        require_free(folder, size)
        if sum(1 for _ in self._files(is_partial_file=False)) >= MAX_WAITING:
            raise NoRoom(f"{MAX_WAITING} files wait here already: none more until some are fetched")
        if not path.exists() and len(self.partials(sender)) >= MAX_PARTIALS:
            raise NoRoom(f"{MAX_PARTIALS} files that this device began to send are unfinished")


class Incoming:
    """A file on its way, open at the right place."""

    def __init__(self, inbox: Inbox, path: Path, name: str, file: BinaryIO) -> None:
        self._inbox = inbox
        self._path = path
        self._name = name
        self._file = file

    def write(self, data: bytes) -> None:
        with _in_words("take a file"):
            require_free(self._path.parent, len(data))
            self._file.write(data)

    def finish(self) -> int:
        """It is whole: give it its name, or a free one like it; returns its size."""
        with _in_words("take a file"):
            self._file.flush()
            os.fsync(self._file.fileno())
            size = os.fstat(self._file.fileno()).st_size
            self._file.close()
            settle(self._path, self._name)
            return size

    def close(self) -> None:
        """What there is of it stays, to be resumed."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._inbox.let_go(self._path)


def settle(partial: Path, name: str) -> None:
    """Move a whole file to its name without ever replacing one; the same content is not kept twice."""
    for _ in range(MAX_TRIES):
        place = partial.with_name(name)
        try:
            os.link(partial, place, follow_symlinks=False)
        except FileExistsError:
            if not _are_alike(partial, place):
                name = next_name(name)
                continue
        partial.unlink()
        return
    raise InboxError("too many files of this name wait here")


def _are_alike(one: Path, other: Path) -> bool:
    try:
        return one.stat().st_size == other.stat().st_size and _digest(one) == _digest(other)
    except FileNotFoundError:  # fetched at this moment
        return False


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, ALGORITHM).digest()


def _open_partial(path: Path, offset: int) -> BinaryIO:
    """Open to write on at ``offset``; what was behind it is gone."""
    file = _open(path, os.O_RDWR | os.O_CREAT)
    try:
        if offset > os.fstat(file.fileno()).st_size:
            raise InboxError(f"offset {offset} out of range")
        file.truncate(offset)
        file.seek(offset)
    except BaseException:
        file.close()
        raise
    return file


def _open(path: Path, flags: int) -> BinaryIO:
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    return os.fdopen(descriptor, "r+b" if flags & os.O_RDWR else "rb")


def require_free(folder: Path, size: int) -> None:
    """Raises :class:`NoRoom` unless the disk holds ``size`` bytes more and stays usable."""
    room = os.statvfs(folder)
    if room.f_bavail * room.f_frsize < size + KEEP_FREE_BYTES:
        raise NoRoom("not enough room on the disk")


def next_block(file: BinaryIO) -> dict[str, Any] | None:
    """The hash of the next block, as the protocol has it; ``None`` at the end."""
    block = file.read(BLOCK_BYTES)
    return {"checksum": block_hash(block), "algo": ALGORITHM, "size": len(block)} if block else None


def block_hash(block: bytes) -> str:
    return hashlib.sha256(block).hexdigest()


@contextlib.contextmanager
def _in_words(what: str) -> Iterator[None]:
    """An ``OSError`` as what it means for the file; no path of this host is told to a peer."""
    try:
        yield
    except FileNotFoundError:
        raise InboxError(f"cannot {what}: there is no such file") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoom("not enough room on the disk") from error
        raise InboxError(f"cannot {what}: {error.strerror or 'an error of the disk'}") from error
