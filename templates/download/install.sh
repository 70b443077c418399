{% autoescape off %}#!/bin/sh
# Installs Trenza's client on Linux from the server it will belong to. Run it as root:
#   curl -fsSL {{ base_url }}/download/install.sh | sudo sh
# TRENZA_AUTH_KEY=tskey-auth-… joins at once. PREFIX, CONF and STATE move its folders. Running it again updates.
set -eu

URL='{{ base_url }}'
TRUSTED='{{ trusted_host }}'
PREFIX=${PREFIX:-/opt/trenza}
CONF=${CONF:-/etc/trenza}
STATE=${STATE:-/var/lib/trenza}
if [ "$STATE" = /var/lib/trenza ]; then RUN=${RUN:-/run/trenza}; else RUN=${RUN:-$STATE}; fi
SOCKET=$RUN/trenzad.sock

say() { printf 'trenza: %s\n' "$*"; }
fail() { printf 'trenza: %s\n' "$*" >&2; exit 1; }

fetch() { # URL FILE; what the tool says of a failure is kept in $work/why
  if command -v curl >/dev/null 2>&1; then curl -fsSL -o "$2" "$1"
  elif command -v wget >/dev/null 2>&1; then LC_ALL=C wget -O "$2" "$1"
  else python3 -c 'import sys, urllib.request; open(sys.argv[2], "wb").write(urllib.request.urlopen(sys.argv[1]).read())' "$1" "$2"
  fi 2>"$work/why"
}
why() { grep . "$work/why" | tail -n 1; }

[ "$(uname -s)" = Linux ] || fail "this client runs on Linux; use the official Tailscale app here, with this server's address $URL"
[ "$(id -u)" = 0 ] || fail "run this as root: it sets up a network interface and a service (add sudo)"
if [ "$PREFIX" = /opt/trenza ] && dpkg-query -W -f '${db:Status-Status}' trenza 2>/dev/null | grep -q '^installed$'; then
  fail "the Debian package trenza is installed here and updates the client; join with: trenza up --login-server=$URL"
fi
command -v python3 >/dev/null 2>&1 || fail "python3 is missing; install Python 3.11 or newer"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or newer is needed, this is $(python3 -V)"
python3 -c 'import venv, ensurepip' 2>/dev/null || fail "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

silent=0 preparing=0 # how often it was asked in vain: 30 seconds for an answer, 5 minutes for its first build
until fetch "$URL/download/client.lock" "$work/client.lock"; do
  if grep -qi 'error.* 503' "$work/why"; then
    preparing=$((preparing + 1))
    [ "$preparing" -lt 100 ] || fail "$URL is still preparing its client; its log says why it takes so long. Run this again later"
    [ "$preparing" -gt 1 ] || say "the server is preparing its client, as it does at its first start; waiting"
  else
    silent=$((silent + 1))
    [ "$silent" -lt 10 ] || fail "cannot download from $URL/download/ ($(why)); is the server up and its address right?"
    [ "$silent" -gt 1 ] || say "waiting for $URL to answer"
  fi
  sleep 3
done
fetch "$URL/download/trenzad.service" "$work/trenzad.service" || fail "cannot download the service file from $URL ($(why))"

newest() { # whether what the lock names is installed already, and works
  cmp -s "$work/client.lock" "$PREFIX/client.lock" && "$PREFIX/bin/trenza" version >/dev/null 2>&1
}
install_wheels() {
  "$PREFIX/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --force-reinstall --require-hashes \
    --find-links "$URL/download/wheels/" ${TRUSTED:+--trusted-host "$TRUSTED"} "$@" -r "$work/client.lock"
}
if newest; then
  say "the newest version is installed in $PREFIX already"
else
  say "installing into $PREFIX"
  [ -x "$PREFIX/bin/python" ] || python3 -m venv "$PREFIX" || fail "cannot make a Python environment in $PREFIX"
  if ! install_wheels --no-index 2>"$work/pip.log"; then
    say "this server has no packages for this kind of machine; taking them from PyPI"
    install_wheels --only-binary :all: || { cat "$work/pip.log" >&2; fail "cannot install the client's packages"; }
  fi
  [ -x "$PREFIX/bin/trenzad" ] || fail "the package has no trenzad; the server's download folder is damaged"
  cp "$work/client.lock" "$PREFIX/client.lock"
fi

umask 077
mkdir -p "$CONF" "$STATE"
kept_key=
[ ! -f "$CONF/client.env" ] || kept_key=$(sed -n 's/^TRENZA_AUTH_KEY=//p' "$CONF/client.env")
key=${TRENZA_AUTH_KEY:-$kept_key}
kept_tags=
[ ! -f "$CONF/client.env" ] || kept_tags=$(sed -n 's/^TRENZA_ADVERTISE_TAGS=//p' "$CONF/client.env")
tags=${TRENZA_ADVERTISE_TAGS:-$kept_tags}
{
  printf 'TRENZA_CONTROL_URL=%s\n' "$URL"
  [ -z "$key" ] || printf 'TRENZA_AUTH_KEY=%s\n' "$key"
  [ -z "$tags" ] || printf 'TRENZA_ADVERTISE_TAGS=%s\n' "$tags"
} >"$work/client.env"
mv "$work/client.env" "$CONF/client.env"
chmod 0600 "$CONF/client.env"
umask 022
if [ "$PREFIX" = /opt/trenza ] && [ -d /usr/local/bin ]; then
  ln -sf "$PREFIX/bin/trenza" /usr/local/bin/trenza
  share=/usr/local/share
else
  share=$PREFIX/share
fi
"$PREFIX/bin/python" -I -m client.manual "$share" 2>/dev/null || say "no manual pages: $share cannot be written"

if [ -d /run/systemd/system ] && [ "$SOCKET" = /run/trenza/trenzad.sock ]; then
  sed -e "s|/opt/trenza/|$PREFIX/|g" -e "s|/etc/trenza/|$CONF/|g" "$work/trenzad.service" >/etc/systemd/system/trenzad.service
  systemctl daemon-reload
  systemctl enable --quiet trenzad.service
  systemctl restart trenzad.service
  # Told before the host sleeps and after it woke (systemd-sleep(8)), the client lets nothing pass meanwhile.
  hook=/usr/lib/systemd/system-sleep/trenza
  { printf '#!/bin/sh\n'; printf 'timeout 5 %s/bin/trenza debug sleep "$1" >/dev/null 2>&1 || :\n' "$PREFIX"; } >"$work/sleep"
  install -D -m 0755 "$work/sleep" "$hook" 2>/dev/null || say "sleep will not be announced: $hook cannot be written"
  say "the service trenzad is running"
else
  mkdir -p "$RUN"
  tries=0
  while [ -f "$STATE/trenzad.pid" ] && kill "$(cat "$STATE/trenzad.pid")" 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 20 ] || fail "the trenzad that runs (process $(cat "$STATE/trenzad.pid")) does not stop; end it, then try again"
    sleep 1
  done
  set -a
  . "$CONF/client.env"
  set +a
  setsid "$PREFIX/bin/trenzad" --state "$STATE" --socket "$SOCKET" >>"$STATE/trenzad.log" 2>&1 </dev/null &
  echo $! >"$STATE/trenzad.pid"
  say "systemd is not running here: trenzad was started by itself (log: $STATE/trenzad.log) and does not survive a restart of the machine"
fi

tries=0
until [ -S "$SOCKET" ]; do
  tries=$((tries + 1))
  [ "$tries" -lt 30 ] || fail "trenzad did not start; look at $([ -d /run/systemd/system ] && echo 'journalctl -u trenzad' || echo "$STATE/trenzad.log")"
  sleep 1
done
trenza="$PREFIX/bin/trenza"
[ "$PREFIX" != /opt/trenza ] || [ ! -d /usr/local/bin ] || trenza=trenza
[ "$SOCKET" = /run/trenza/trenzad.sock ] || trenza="$trenza --socket $SOCKET"
if [ -n "$key" ]; then
  say "joining"
  umask 077
  printf '%s\n' "$key" >"$work/key"
  "$PREFIX/bin/trenza" --socket "$SOCKET" up --login-server="$URL" --auth-key="file:$work/key" --timeout=60s || \
    fail "not joined; the line above says why. Try again with: $trenza up"
  say "done; look with: $trenza status"
else
  say "installed; join with: $trenza up"
fi
{% endautoescape %}
