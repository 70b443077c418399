"""A virtual machine with a Debian kernel, on this machine's own files: nothing to install, no disk image.

The host's ``/`` is shared read-only by 9p; what is written goes to a layer in memory. The kernel comes from
Debian's package, which is not installed. Emulated (TCG): about ten times slower than the machine itself.
"""

from __future__ import annotations

import io
import lzma
import os
import shlex
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.needs import program

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / "build" / "kernel"
HERE = Path(__file__).parent
QEMU = "qemu-system-x86_64"
# The cloud flavour has no 9p.
PACKAGE = "linux-image-amd64"
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
MEMORY_MIB = 4096
PROCESSORS = 2
FETCH_SECONDS = 600.0
STATUS = "kernel-test: ended with status "


class CannotRun(Exception):
    """This host cannot run the machine; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel package: the image, and its modules under ``modules/VERSION``."""

    version: str
    folder: Path

    @property
    def image(self) -> Path:
        return self.folder / "boot" / f"vmlinuz-{self.version}"

    @property
    def modules(self) -> Path:
        return self.folder / "lib" / "modules"


def prepare() -> Kernel:
    """What the machine needs, fetched when it is not there yet; raises :class:`CannotRun`."""
    if os.uname().machine != "x86_64":
        raise CannotRun(f"the machine is x86-64, this host is {os.uname().machine}")
    for name, package in ((QEMU, "qemu-system-x86"), ("busybox", "busybox-static")):
        if program(name) is None:
            raise CannotRun(f"{name} is not installed (apt install --no-install-recommends {package})")
    found = _unpacked() or _fetched()
    if not (found.modules / found.version / "modules.dep").exists():
        _run("busybox", "depmod", "-b", found.folder, found.version)
    return found


def _unpacked() -> Kernel | None:
    for image in sorted(FOLDER.glob("boot/vmlinuz-*"), reverse=True):
        return Kernel(image.name.removeprefix("vmlinuz-"), FOLDER)
    return None


def _fetched() -> Kernel:
    """Unpack Debian's current kernel into ``build/kernel``."""
    if program("apt-get") is None or program("dpkg-deb") is None:
        raise CannotRun(f"no kernel in {FOLDER}, and without apt-get none can be fetched")
    depends = _run("apt-cache", "depends", PACKAGE)
    name = next((line.split()[1] for line in depends.splitlines() if "Depends: linux-image-" in line), "")
    if not name:
        raise CannotRun(f"apt knows no package {PACKAGE} (apt-get update)")
    packages = FOLDER / "package"
    packages.mkdir(parents=True, exist_ok=True)
    try:
        _run("apt-get", "download", "-qq", name, folder=packages)
        new = FOLDER / "new"
        shutil.rmtree(new, ignore_errors=True)
        _run("dpkg-deb", "-x", *packages.glob("*.deb"), new)
        for path in (new / "lib", new / "boot"):  # the image last: it says that all is there
            shutil.rmtree(FOLDER / path.name, ignore_errors=True)
            path.rename(FOLDER / path.name)
        shutil.rmtree(new)
    finally:
        shutil.rmtree(packages)
    found = _unpacked()
    if found is None:
        raise CannotRun(f"the package {name} has no kernel in it")
    return found


def _run(*command: str | Path, folder: Path | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=FETCH_SECONDS,
        cwd=folder,
    )
    if done.returncode:
        raise CannotRun(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


# --- the initial RAM disk ----------------------------------------------------------------------------------


def module_order(kernel: Kernel) -> list[Path]:
    """Those modules that mount the host's files, and what they need, in the order of loading."""
    paths: dict[str, Path] = {}
    needs: dict[Path, list[Path]] = {}
    for line in (kernel.modules / kernel.version / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        paths[Path(path).name.partition(".")[0]] = Path(path)
        needs[Path(path)] = [Path(name) for name in rest.split()]
    ordered: list[Path] = []

    def add(path: Path) -> None:
        for needed in needs[path]:
            add(needed)
        if path not in ordered:
            ordered.append(path)

    for name in MODULES:
        if name in paths:  # else it is built in
            add(paths[name])
    return ordered


def _module(path: Path) -> bytes:
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content


def initial_disk(kernel: Kernel, command: str) -> bytes:
    """A cpio archive (newc): busybox, the modules, our two scripts and ``command``."""
    order = module_order(kernel)
    names = [path.name.removesuffix(".xz") for path in order]
    files = {
        "init": (HERE / "init.sh").read_bytes(),
        "inside.sh": (HERE / "inside.sh").read_bytes(),
        "command": command.encode(),
        "bin/busybox": Path(program("busybox") or "").read_bytes(),
        "modules/order": "".join(f"{name}\n" for name in names).encode(),
    }
    for name, path in zip(names, order, strict=True):
        files[f"modules/{name}"] = _module(kernel.modules / kernel.version / path)
    out = io.BytesIO()
    for number, name in enumerate(("bin", "modules", "proc", "dev")):
        out.write(_cpio_entry(number, name, stat.S_IFDIR | 0o755, b""))
    for number, (name, content) in enumerate(files.items(), 10):
        out.write(_cpio_entry(number, name, stat.S_IFREG | 0o755, content))
    out.write(_cpio_entry(0, "TRAILER!!!", 0, b""))
    return out.getvalue()


def _cpio_entry(number: int, name: str, mode: int, content: bytes) -> bytes:
    """One file. Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst."""
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


# --- running -----------------------------------------------------------------------------------------------


def command_file(kernel: Kernel, command: list[str], environment: Mapping[str, str], now: int) -> str:
    """What ``inside.sh`` reads: where things are, the time, and the work as a function."""
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    return (
        f"MODULES={shlex.quote(str(kernel.modules))}\nCHECKOUT={shlex.quote(str(CHECKOUT))}\nNOW={now}\n"
        f"{exports}main() {{ {shlex.join(command)}; }}\n"
    )


def boot(command: list[str], environment: Mapping[str, str], *, now: int, seconds: float) -> Iterator[str]:
    """Run ``command`` in the checkout of a fresh machine; yields its lines. Ends the machine with them.

    Raises :class:`CannotRun`. The last line is :data:`STATUS` and the command's status, else it broke down.
    """
    kernel = prepare()
    disk = FOLDER / f"disk.{os.getpid()}"
    disk.write_bytes(initial_disk(kernel, command_file(kernel, command, environment, now)))
    process = subprocess.Popen(
        qemu_command(kernel, disk), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield from _lines(process, time.monotonic() + seconds)
    finally:
        process.kill()
        process.wait()
        disk.unlink()


def qemu_command(kernel: Kernel, disk: Path) -> list[str]:
    return [
        *(program(QEMU) or QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(PROCESSORS)),
        *("-m", str(MEMORY_MIB), "-nographic", "-no-reboot", "-nic", "none", "-monitor", "none"),
        *("-kernel", str(kernel.image), "-initrd", str(disk)),
        *("-append", "console=ttyS0 quiet panic=-1 loglevel=3 mitigations=off"),
        *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
    ]


def _lines(process: subprocess.Popen[bytes], deadline: float) -> Iterator[str]:
    assert process.stdout is not None
    with process.stdout as output:
        os.set_blocking(output.fileno(), True)
        for raw in output:
            line = raw.decode(errors="replace").rstrip("\r\n")
            yield line
            if line.startswith(STATUS) or time.monotonic() > deadline:
                return


def status_of(line: str) -> int | None:
    """The command's status when ``line`` tells it."""
    return int(line.removeprefix(STATUS)) if line.startswith(STATUS) else None
