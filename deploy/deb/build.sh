#!/usr/bin/env bash
# Builds the client's Debian package: deploy/deb/build.sh [FOLDER] (default: dist). Run it where it is to be
# installed, or on the same Debian release and architecture: its wheels belong to that Python.
# PYTHON is the distribution's interpreter, VENV the checkout's environment (make install).
set -euo pipefail
cd "$(dirname "$0")/../.."
umask 022
target=$(realpath -m "${1:-dist}")
python=${PYTHON:-/usr/bin/python3}
manager=${VENV:-.venv}/bin/python
prefix=/opt/trenza
fail() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }

command -v dpkg-deb >/dev/null || fail "dpkg-deb is missing; build on Debian or Ubuntu"
[ -x "$manager" ] || fail "$manager is missing; run: make install"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$python is older than Python 3.11"
minor=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[ "$("$manager" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = "$minor" ] ||
  fail "the wheels are for the Python of $manager, which is not $python's $minor; set PYTHON"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
site=$root$prefix/lib/python$minor/site-packages

# The same wheels and lock that the server hands out to the install script.
env TRENZA_DATA="$work/data" "$manager" manage.py builddownloads >"$work/log" 2>&1 || fail "$(tail -3 "$work/log")"
download=$work/data/download
"$python" -m venv --without-pip "$root$prefix"
"$manager" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --require-hashes \
  --find-links "$download/wheels" --target "$site" --requirement "$download/client.lock"

# The environment was made elsewhere: what names that place is made anew or left out.
find "$root$prefix/bin" -mindepth 1 -not -name 'python*' -delete
rm -rf "$site/bin" "$root$prefix/include"
sed -i '/^command = /d' "$root$prefix/pyvenv.cfg"
entry() { # NAME MODULE FUNCTION
  printf '#!%s/bin/python -I\nimport sys\n\nfrom %s import %s\n\nsys.exit(%s())\n' "$prefix" "$2" "$3" "$3" >"$root$prefix/bin/$1"
  chmod 0755 "$root$prefix/bin/$1"
}
entry trenza client.cli.__main__ main
entry trenzad client.daemon main
# Compiled here: the daemon cannot write there, and nothing is left when the package goes.
"$python" -m compileall -q -s "$root" -p / --invalidation-mode unchecked-hash "$site"

"$root$prefix/bin/python" -I -m client.manual "$root/usr/share"
mv "$root/usr/share/zsh/site-functions" "$root/usr/share/zsh/vendor-completions"
find "$root/usr/share/man" -type f -exec gzip -9n {} +

install -D -m 0644 deploy/systemd/trenzad.service "$root/lib/systemd/system/trenzad.service"
install -D -m 0755 deploy/systemd/sleep "$root/usr/lib/systemd/system-sleep/trenza"
install -D -m 0600 deploy/deb/client.env "$root/etc/trenza/client.env"
install -D -m 0644 LICENSE "$root/usr/share/doc/trenza/copyright"
mkdir -p "$root/usr/bin"
ln -s "$prefix/bin/trenza" "$root/usr/bin/trenza"

mkdir "$root/DEBIAN"
version=$(sed -n 's/^trenza==\([^ ]*\).*/\1/p' "$download/client.lock")
architecture=$(dpkg --print-architecture)
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@PYTHON@/$minor/" \
  -e "s/@NEXT@/${minor%.*}.$((${minor#*.} + 1))/" -e "s/@SIZE@/$(du -sk "$root" | cut -f1)/" \
  deploy/deb/control >"$root/DEBIAN/control"
printf '/etc/trenza/client.env\n' >"$root/DEBIAN/conffiles"
install -m 0755 deploy/deb/postinst deploy/deb/prerm deploy/deb/postrm "$root/DEBIAN/"
(cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"

mkdir -p "$target"
package=$target/trenza_${version}_$architecture.deb
dpkg-deb --root-owner-group --build "$root" "$package" >/dev/null
printf '%s\n' "$package"
