#!/bin/sh
# Fetch one pinned npm package, check it and unpack its native binary: fetch.sh DESTINATION
# /builder/pins has a row for each processor: Debian's name of it, package, version, integrity as npm writes it.
# NPM_REGISTRY may name the registry to use instead of npm's own default.
set -eu

row=$(grep "^$(dpkg --print-architecture)[[:space:]]" /builder/pins) || {
  echo "no pinned package for $(dpkg --print-architecture)" >&2
  exit 1
}
# shellcheck disable=SC2086  # the row is split into its four words on purpose
set -- "$1" $row
out=$1 package=$3@$4 integrity=$5

apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends npm > /dev/null

# The machine's own root certificates, where it has any: Debian's bundle with them appended.
cat /etc/ssl/certs/ca-certificates.crt /builder/*.crt > /builder/bundle.pem 2> /dev/null || true
export npm_config_cafile=/builder/bundle.pem NODE_EXTRA_CA_CERTS=/builder/bundle.pem
export npm_config_update_notifier=false npm_config_audit=false
[ -z "${NPM_REGISTRY:-}" ] || export npm_config_registry="$NPM_REGISTRY"

mkdir -p /fetch "$out"
npm pack --silent --pack-destination /fetch "$package" > /dev/null
tarball=$(find /fetch -name '*.tgz')

# npm has compared the tarball with what the registry says of it; the pin is ours, from the manifest.
actual="sha512-$(openssl dgst -sha512 -binary "$tarball" | base64 -w0)"
if [ "$actual" != "$integrity" ]; then
  echo "integrity of $package: expected $integrity, got $actual" >&2
  exit 1
fi
tar -xzf "$tarball" -C "$out" --strip-components=1 --no-same-owner package/claude
chown 0:0 "$out/claude"
chmod 0755 "$out/claude"
