#!/bin/sh
export ROOT_ACCESS_KEY=sealtape ROOT_SECRET_KEY='@secret@'
mkdir -p /data/objects /data/versions /data/users
exec versitygw --port :7070 --cert /conf/tls.crt --key /conf/tls.key --health /health \
  --iam-dir /data/users posix --versioning-dir /data/versions /data/objects
