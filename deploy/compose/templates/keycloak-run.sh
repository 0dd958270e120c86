#!/bin/bash
export KC_BOOTSTRAP_ADMIN_USERNAME=admin KC_BOOTSTRAP_ADMIN_PASSWORD='@password@'
export KC_HEALTH_ENABLED=true
mkdir -p /opt/keycloak/data/import
cp /conf/realm.json /opt/keycloak/data/import/sealtape-realm.json
exec /opt/keycloak/bin/kc.sh start-dev --import-realm --https-port=8443 \
  --hostname=https://keycloak:8443 \
  --https-certificate-file=/conf/tls.crt --https-certificate-key-file=/conf/tls.key
