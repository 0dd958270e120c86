#!/bin/bash
export OPENSEARCH_HOSTS='["https://opensearch:9200"]'
export OPENSEARCH_USERNAME=kibanaserver OPENSEARCH_PASSWORD='@password@'
export OPENSEARCH_SSL_CERTIFICATEAUTHORITIES='["/conf/ca.crt"]' OPENSEARCH_SSL_VERIFICATIONMODE=full
exec /usr/share/opensearch-dashboards/opensearch-dashboards-docker-entrypoint.sh opensearch-dashboards
