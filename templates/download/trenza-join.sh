{% autoescape off %}#!/bin/sh
# Installs the Trenza client from {{ base_url }} and joins with auth key {{ key.public_id }} (good until {{ key.expires|date:"Y-m-d" }}).
# Run it as root. It holds a secret: delete it when you have used it.
set -eu
umask 077

TRENZA_AUTH_KEY='{{ secret }}'
export TRENZA_AUTH_KEY

script=$(mktemp)
trap 'rm -f "$script"' EXIT
if command -v curl >/dev/null 2>&1; then
  curl -fsSL --retry 5 --retry-delay 2 -o "$script" '{{ base_url }}/download/install.sh'
elif command -v wget >/dev/null 2>&1; then
  wget -q -O "$script" '{{ base_url }}/download/install.sh'
else
  python3 -c 'import sys, urllib.request; open(sys.argv[2], "wb").write(urllib.request.urlopen(sys.argv[1]).read())' \
    '{{ base_url }}/download/install.sh' "$script"
fi
sh "$script"
{% endautoescape %}
