"""The golden vectors of events, and documents to map."""

import json
from pathlib import Path

from hypothesis import strategies as st

from sealtape.schemas.documents import CommandDocument, SessionDocument

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "events.json").read_text(encoding="utf-8")
)
counts = st.integers(0, 2**62)
times = st.integers(0, 2**62)
words = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)
lists = st.lists(words, max_size=3).map(tuple)
shared = {
    "session": st.binary(min_size=16, max_size=16),
    "tenant": st.just("main"),
    "retention": st.just("standard"),
    "user": words,
    "groups": lists.map(lambda names: tuple(name for name in names if name)),
    "agent": words,
    "run": words,
    "target": words,
    "protocol": st.sampled_from(["postgres", "journal", "ssh", ""]),
    "source": words | st.ip_addresses().map(str) | st.sampled_from(["[::1]:5", "1.2.3.4:5"]),
}  # fmt: skip
sessions = st.builds(
    SessionDocument, **shared, on_behalf_of=lists, database=words, client=words, node=words,
    started_ns=times, ended_ns=st.none() | times, frames=counts, bytes_client=counts,
    bytes_server=counts, commands=counts, errors=counts, revision=counts,
    state=st.sampled_from(["live", "closed", "sealed"]),
    close_reason=st.sampled_from(["client", "aborted", "spool", ""]),
)  # fmt: skip
commands = st.builds(
    CommandDocument, **shared, epoch=st.integers(0, 9), n=counts, seq=counts, time_ns=times,
    leg=st.integers(-1, 3), offset=counts, length=counts, version=st.integers(0, 3),
    status=st.sampled_from(["running", "ok", "error"]), text=words, fingerprint=words,
    effect=st.sampled_from(["read", "write", "ddl", "privilege", "other", "unknown", "", "odd"]),
    tables=lists.map(lambda names: tuple(name for name in names if name)),
    rows=st.integers(-1, 2**62), bytes_out=counts, duration_ns=st.none() | times, error=words,
    message=words,
)  # fmt: skip


def indexed(*names):
    """The vectors whose names begin so: (name, session, command or None, close or None, event)."""
    for case in VECTORS["indexed"]:
        if not case["name"].startswith(names):
            continue
        session = SessionDocument.from_json(case["session"].encode())
        command = None
        if "command" in case:
            command = CommandDocument.from_json(case["command"].encode())
        yield session, command, case.get("close"), json.loads(case["event"])
