-- Offsets begin anew on a bus that was cut off, so a place names one message no more: what is kept of
-- each goes by its bytes, and by whom it is about. A message that is read twice is one row still.
ALTER TABLE quarantine DROP CONSTRAINT quarantine_pkey,
  ADD PRIMARY KEY (topic, part, bus_offset, sha256);
ALTER TABLE incident DROP CONSTRAINT incident_topic_part_bus_offset_reason_key,
  ADD UNIQUE (topic, part, bus_offset, reason, session, epoch, seq);
