"""What machines get under ``/download/``: the client's wheel, a lock with hashes, the wheels it needs, units.

``manage.py builddownloads`` fills DATA/download while the server already serves; it does nothing when the
sources have not changed since the last time.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from controlplane.env import CHECKOUT, Environment

PACKAGES = ("wire", "client", "relay")
PROJECT_FILES = ("pyproject.toml", "README.md", "LICENSE")
LOCK = Path("requirements") / "client.lock"
UNITS = tuple(Path("deploy") / "systemd" / name for name in ("trenzad.service", "trenza-relay.service"))
WHEELS = "wheels"
STAMP = "built"
MAX_FILE_BYTES = 64 * 1024 * 1024
PIP_SECONDS = 300
SAFE_NAME = re.compile(r"(wheels/)?[A-Za-z0-9][A-Za-z0-9._+-]*")
CONTENT_TYPES = {
    ".whl": "application/zip",
    ".lock": "text/plain; charset=utf-8",
    ".service": "text/plain; charset=utf-8",
}


class BuildFailed(Exception):
    """pip could not build or fetch something; the message has its last lines."""


@dataclass(frozen=True, slots=True)
class Built:
    """What a build left behind: the client's wheel, how many others beside it, and why some are missing."""

    wheel: str
    dependencies: int
    fresh: bool
    problem: str = ""


def folder(data: Path) -> Path:
    return data / "download"


def is_built(data: Path) -> bool:
    """Whether the client's wheel and lock are there."""
    return (folder(data) / STAMP).exists()


def wheel_names(data: Path) -> list[str]:
    """The wheels under ``wheels/``, the client's own among them."""
    return sorted(path.name for path in (folder(data) / WHEELS).glob("*.whl")) if is_built(data) else []


def read_file(data: Path, name: str) -> bytes:
    """A file of the download folder by its name; raises ``FileNotFoundError`` for anything else."""
    if SAFE_NAME.fullmatch(name) is None or name == STAMP:
        raise FileNotFoundError(name)
    path = folder(data) / name
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        raise FileNotFoundError(name)
    return path.read_bytes()


def content_type(name: str) -> str:
    return CONTENT_TYPES.get(Path(name).suffix, "application/octet-stream")


def script_context(env: Environment) -> dict[str, str]:
    """What the install script is rendered with. A plain-http server must be named to pip as trusted."""
    parts = urlsplit(env.url)
    return {"base_url": env.url, "trusted_host": parts.hostname or "" if parts.scheme == "http" else ""}


def build(data: Path, *, checkout: Path = CHECKOUT) -> Built:
    """Make the wheel and the lock, fetch the wheels of the lock; raises :class:`BuildFailed`.

    Without a package index the client's wheel is still served: machines then take the rest from PyPI.
    """
    target = folder(data)
    target.mkdir(parents=True, exist_ok=True)
    with _only_one(target):
        stamp = _digest(checkout)
        if is_built(data) and (target / STAMP).read_text() == stamp:
            return Built(_client_wheel(target), len(wheel_names(data)) - 1, fresh=False)
        with tempfile.TemporaryDirectory(dir=data, prefix="download.") as name:
            made = Path(name)
            wheel = _build_wheel(checkout, made / WHEELS)
            _write_lock(checkout, made, wheel)
            for unit in UNITS:
                shutil.copy(checkout / unit, made / unit.name)
            try:
                _fetch_dependencies(checkout, made / WHEELS)
                problem = ""
            except BuildFailed as error:
                problem = str(error)
            _move_in(made, target)
        count = len(list((target / WHEELS).glob("*.whl"))) - 1
        # Without its dependencies it is tried again at the next start.
        _write(target / STAMP, "" if problem else stamp)
        return Built(wheel.name, count, fresh=True, problem=problem)


@contextmanager
def _only_one(target: Path) -> Iterator[None]:
    """One build at a time, whichever process does it."""
    descriptor = os.open(target / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sources(checkout: Path) -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((checkout / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path
    for name in (*map(Path, PROJECT_FILES), LOCK, *UNITS):
        yield checkout / name


def _digest(checkout: Path) -> str:
    total = hashlib.sha256(sys.version.encode())
    for path in _sources(checkout):
        content = path.read_bytes()
        total.update(f"{path.relative_to(checkout)} {len(content)}\n".encode() + content)
    return total.hexdigest()


def _build_wheel(checkout: Path, wheels: Path) -> Path:
    """Build in a copy: setuptools would leave its folders in the checkout."""
    wheels.mkdir()
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for package in PACKAGES:
            shutil.copytree(checkout / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
        for file in PROJECT_FILES:
            shutil.copy(checkout / file, copy / file)
        arguments = ["wheel", "--no-deps", "--wheel-dir", str(wheels), str(copy)]
        if importlib.util.find_spec("setuptools") and importlib.util.find_spec("wheel"):
            arguments.insert(1, "--no-build-isolation")
        _pip(arguments)
    return next(wheels.glob("*.whl"))


def _fetch_dependencies(checkout: Path, wheels: Path) -> None:
    options = ["--require-hashes", "--no-deps", "--only-binary=:all:", "--dest", str(wheels)]
    _pip(["download", *options, "--requirement", str(checkout / LOCK)])


def _pip(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(f"pip did not finish in {PIP_SECONDS} s") from error
    if done.returncode != 0:
        raise BuildFailed("\n".join(done.stderr.strip().splitlines()[-3:]))


def _write_lock(checkout: Path, made: Path, wheel: Path) -> None:
    """The client's lock plus the client itself, by hash: one file that pip installs everything from."""
    version = wheel.name.split("-")[1]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    text = (checkout / LOCK).read_text() + f"trenza=={version} \\\n    --hash=sha256:{digest}\n"
    (made / LOCK.name).write_text(text)


def _move_in(made: Path, target: Path) -> None:
    """Replace what was there, file by file, so that a download in progress keeps its file."""
    for path in sorted(made.rglob("*")):
        place = target / path.relative_to(made)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        else:
            path.replace(place)
            place.chmod(0o644)
    kept = {path.name for path in (target / WHEELS).glob("*.whl")}
    for name in kept - _named_in(target / LOCK.name, kept):
        (target / WHEELS / name).unlink()


def _named_in(lock: Path, wheels: set[str]) -> set[str]:
    """Those wheels whose project and version the lock names."""
    pinned = {
        (re.sub(r"[-_.]+", "_", name).lower(), version)
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ \\\n]+)", lock.read_text(), re.M)
    }
    return {
        wheel
        for wheel in wheels
        if (re.sub(r"[-_.]+", "_", wheel.split("-")[0]).lower(), wheel.split("-")[1]) in pinned
    }


def _client_wheel(target: Path) -> str:
    return next((path.name for path in (target / WHEELS).glob("trenza-*.whl")), "")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.replace(path)
