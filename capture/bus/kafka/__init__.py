"""The bus on Kafka, spoken with aiokafka's connections, requests and record batches."""
