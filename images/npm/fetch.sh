#!/bin/sh
# Fetch the pinned npm packages of an agent, check and unpack them: fetch.sh DESTINATION
# /builder/pins has a row for each: Debian's name of a processor ("any" for all), name of the directory below
# DESTINATION, package, version, integrity as npm writes it. NPM_REGISTRY may name the registry to use instead of
# npm's own default.
set -eu
out=$1

# The machine's own root certificates, where it has any: Debian's bundle with them appended.
cat /etc/ssl/certs/ca-certificates.crt /builder/*.crt > /builder/bundle.pem 2> /dev/null || true
export npm_config_cafile=/builder/bundle.pem NODE_EXTRA_CA_CERTS=/builder/bundle.pem
export npm_config_update_notifier=false npm_config_audit=false
[ -z "${NPM_REGISTRY:-}" ] || export npm_config_registry="$NPM_REGISTRY"

# fetch DIRECTORY PACKAGE VERSION INTEGRITY
fetch() {
  rm -rf /fetch
  mkdir -p /fetch "$out/$1"
  npm pack --silent --pack-destination /fetch "$2@$3" > /dev/null < /dev/null
  tarball=$(find /fetch -name '*.tgz')
  # npm has compared the tarball with what the registry says of it; the pin is ours, from the manifest.
  actual="sha512-$(openssl dgst -sha512 -binary "$tarball" | base64 -w0)"
  if [ "$actual" != "$4" ]; then
    echo "integrity of $2@$3: expected $4, got $actual" >&2
    exit 1
  fi
  tar -xzf "$tarball" -C "$out/$1" --strip-components=1 --no-same-owner --no-same-permissions
  rm -rf /fetch
}

architecture=$(dpkg --print-architecture)
# shellcheck disable=SC2013  # names of directories hold no spaces
for name in $(cut -f2 /builder/pins | sort -u); do
  row=$(awk -v name="$name" -v arch="$architecture" \
    '$2 == name && ($1 == arch || $1 == "any")' /builder/pins)
  if [ -z "$row" ]; then
    echo "no pinned package $name for $architecture" >&2
    exit 1
  fi
  # shellcheck disable=SC2086  # the row is split into its five words on purpose
  set -- $row
  fetch "$2" "$3" "$4" "$5"
done
chown -R 0:0 "$out"
chmod -R go-w,a+rX "$out"
