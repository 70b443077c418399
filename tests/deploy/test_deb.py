"""The client's Debian package: built, installed, used, removed and purged by dpkg itself.

It happens on this machine's own files under a layer in memory, in a mount namespace: nothing of it stays.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.root, pytest.mark.needs("dpkg-deb", "system-python")]

BUILD = Path(__file__).resolve().parents[2] / "deploy" / "deb" / "build.sh"
SECONDS = 900
IN_A_LAYER = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
for place in /proc /dev; do mount --rbind "$place" "$1/root$place"; done
mount -t tmpfs tmpfs "$1/root/run"
cp "$2" "$1/root/run/trenza.deb"
exec chroot "$1/root" sh -euc "$3"
"""
LIFE = """
cd /
leave() { echo "$*" >&2; exit 1; }
install() { dpkg --no-debsig -i /run/trenza.deb; }
settings=/etc/trenza/client.env
wanted=/etc/systemd/system/multi-user.target.wants/trenzad.service
places="/opt/trenza /usr/share /usr/lib/systemd"
left() { find $places -newer /run/start -ipath '*trenza*' -not -type d 2>/dev/null || true; }
touch /run/start

install
[ "$(trenza version)" = "$(dpkg-query -f '${Version}' -W trenza)" ] || leave "trenza is another version"
/opt/trenza/bin/trenzad --version
/opt/trenza/bin/trenzad --port 70000 2>&1 | grep -q '^trenzad: ' || leave "no complaint"
[ "$(stat -c %a $settings)" = 600 ] || leave "anybody can read the settings"
[ -L $wanted ] || leave "the service is not enabled"
man -w trenza-up trenzad
[ -e /usr/share/bash-completion/completions/trenza ] || leave "no completion"
[ -x /usr/lib/systemd/system-sleep/trenza ] || leave "sleep is not announced"
/usr/lib/systemd/system-sleep/trenza pre suspend || leave "no daemon keeps the host from sleeping"

echo TRENZA_CONTROL_URL=https://kept.example >>$settings
install
grep -q kept.example $settings || leave "an update lost the settings"

mkdir -p /var/lib/trenza
echo key >/var/lib/trenza/state
dpkg -r trenza
[ -z "$(left)" ] || leave "removing leaves: $(left)"
! command -v trenza || leave "the command is left"
grep -q kept.example $settings || leave "removing lost the settings"
[ -e /var/lib/trenza/state ] || leave "removing lost the identity"

install
[ -L $wanted ] || leave "the service is not enabled again"
dpkg -P trenza
for path in /etc/trenza /var/lib/trenza /opt/trenza $wanted /etc/systemd/system/trenzad.service; do
  { [ ! -e "$path" ] && [ ! -L "$path" ]; } || leave "purging leaves $path"
done
echo all is well
"""


def test_a_package_lives_and_leaves_nothing(tmp_path: Path) -> None:
    built = subprocess.run(
        ["bash", BUILD, tmp_path], capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert built.returncode == 0, built.stderr
    layer = tmp_path / "layer"
    layer.mkdir()
    command = ["unshare", "--mount", "sh", "-c", IN_A_LAYER, "sh", layer, built.stdout.strip(), LIFE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all is well\n")
