#!/bin/sh
# Run by the image when the database is new.
exec psql -v ON_ERROR_STOP=1 -q -U shop -d shop -f /conf/shop.sql
