"""The pure PostgreSQL codec: bytes in, facts and bytes out; no sockets, no clock, no logging.

* `messages`: message tables, builders and small parsers of protocol 3.0 and 3.2.
* `startup`: what may come before a session: SSLRequest, CancelRequest, StartupMessage.
* `scram`: the client half of SCRAM-SHA-256, md5 and cleartext authentication.
* `scanner`: splits a byte stream into messages without ever holding a whole one.
* `statements`: what a statement does, and the same text without its literals.
* `tracker`: the session state machine that turns both directions into facts.
* `rows`: decodes recorded bytes again, for replay and for `verify --deep`.
"""
