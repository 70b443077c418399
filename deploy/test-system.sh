#!/usr/bin/env bash
# Installs from the distribution what the tests drive for real; without root it only says what is missing.
set -euo pipefail
declare -A need=(
  [wireguard-go]=wireguard-go [wg]=wireguard-tools [nft]=nftables [ip]=iproute2 [conntrack]=conntrack
  [iperf3]=iperf3 [chromium]=chromium [redis-server]=redis-server [caddy]=caddy [nginx]=nginx [ping]=iputils-ping
  [pg_ctlcluster]=postgresql [cc]=build-essential [faketime]=faketime [miniupnpd]=miniupnpd-nftables [dropbear]=dropbear-bin
  [ssh]=openssh-client
  [systemd-analyze]=systemd [man]=man-db [zsh]=zsh [fish]=fish [qemu-system-x86_64]=qemu-system-x86
  [busybox]=busybox-static
)
missing=()
PATH=$PATH:/usr/sbin:/sbin
for command in "${!need[@]}"; do command -v "$command" >/dev/null || missing+=("${need[$command]}"); done
[ -e /usr/include/openssl/ssl.h ] || missing+=(libssl-dev)  # bench/relay/load.c
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "not installed (tests that need them are skipped): ${missing[*]}"
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
