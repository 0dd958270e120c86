#!/bin/sh
# Who may do what: docs/kafka.md. Run once the topics are there; adding a rule twice changes nothing.
set -eu
may() { # PRINCIPAL OPERATION... TOPIC
  user=$1; shift
  operations=""; while [ $# -gt 1 ]; do operations="$operations --operation $1"; shift; done
  /opt/kafka/bin/kafka-acls.sh --bootstrap-server kafka:9092 \
    --command-config /mnt/shared/config/admin.properties \
    --add --allow-principal "User:CN=$user" $operations --topic "$1" > /dev/null
}
group() { # PRINCIPAL GROUP
  /opt/kafka/bin/kafka-acls.sh --bootstrap-server kafka:9092 \
    --command-config /mnt/shared/config/admin.properties \
    --add --allow-principal "User:CN=$1" --operation Read --operation Describe --group "$2" > /dev/null
}
for topic in sealtape.frames sealtape.keys; do
  may capture Write Describe DescribeConfigs "$topic"
  may ingest Read Describe DescribeConfigs "$topic"
  may indexer Read Describe DescribeConfigs "$topic"
  may auditor Read Describe DescribeConfigs "$topic"
done
may ingest Write Describe DescribeConfigs sealtape.events
may indexer Write Describe DescribeConfigs sealtape.events
may auditor Read Describe DescribeConfigs sealtape.events
group ingest sealtape-ingest
group indexer sealtape-indexer
for reader in ingest indexer auditor; do
  group "$reader" sealtape-ingest; group "$reader" sealtape-indexer
done
