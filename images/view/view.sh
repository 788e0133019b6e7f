#!/bin/sh
# Ask npm for name, version and integrity of each package of /builder/specs, a line each: /answers gets what it says,
# with a NUL behind each answer. NPM_REGISTRY may name the registry to use instead of npm's own default.
set -eu

# The machine's own root certificates, where it has any: Debian's bundle with them appended.
cat /etc/ssl/certs/ca-certificates.crt /builder/*.crt > /builder/bundle.pem 2> /dev/null || true
export npm_config_cafile=/builder/bundle.pem NODE_EXTRA_CA_CERTS=/builder/bundle.pem
export npm_config_update_notifier=false npm_config_fetch_retries=1
[ -z "${NPM_REGISTRY:-}" ] || export npm_config_registry="$NPM_REGISTRY"

while read -r spec; do
  # It fails for what is not there, and says so in its answer.
  npm view --json -- "$spec" name version dist.integrity < /dev/null 2> /builder/errors | head -c 4000000 || true
  printf '\0'
done < /builder/specs > /answers
