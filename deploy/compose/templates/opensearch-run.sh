#!/bin/bash
# The passwords become hashes here, so that no volume holds both.
set -euo pipefail
home=/usr/share/opensearch
cp /conf/opensearch.yml "$home/config/opensearch.yml"
cp /conf/tls.crt /conf/tls.key /conf/ca.crt "$home/config/"
hash() { "$home/plugins/opensearch-security/tools/hash.sh" -p "$(cat "/conf/$1.password")" | tail -n 1; }
cat > "$home/config/opensearch-security/internal_users.yml" <<YAML
_meta: {type: internalusers, config_version: 2}
admin: {hash: "$(hash admin)", reserved: true, backend_roles: [admin]}
kibanaserver: {hash: "$(hash dashboards)", reserved: true}
indexer: {hash: "$(hash indexer)", reserved: false, backend_roles: [sealtape_indexer]}
YAML
exec "$home/opensearch-docker-entrypoint.sh" opensearch
