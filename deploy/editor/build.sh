#!/usr/bin/env bash
# Makes static/vendor/codemirror anew, from exactly what package-lock.json names. Needs Node.js and npm.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
target="$here/../../static/vendor/codemirror"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cp "$here"/package.json "$here"/package-lock.json "$here"/entry.js "$work"
cd "$work"
npm ci --no-audit --no-fund --ignore-scripts --silent
mkdir -p "$target"
node_modules/.bin/esbuild entry.js --bundle --minify --format=esm --target=es2022 --legal-comments=none \
	--charset=utf8 --outfile="$target/codemirror.min.js" --log-level=warning
cp node_modules/@codemirror/view/LICENSE "$target/LICENSE"
