"""Writes events.json: what goes in (documents, outbox rows) and the OCSF event that comes out.

Run `python -m tests.vectors.generate_events` from the repository's root. The events are written out
here by hand from docs/spec/events.md; the mapping itself is not asked.
"""

import json

from sealtape.schemas import canonical, documents
from tests.vectors.generate_b import FOLDER, SESSION, TS_NS

JOURNAL = bytes(range(0x50, 0x60))
NAME = SESSION.hex()
MS = TS_NS // 1_000_000
RECORD = "5c" * 32


def main():
    text = json.dumps(generate(), indent=2, ensure_ascii=False) + "\n"
    (FOLDER / "events.json").write_text(text, encoding="utf-8")


def generate():
    return {"indexed": list(indexed()), "lifecycle": list(lifecycle())}


# -- what goes in ----------------------------------------------------------------------------------


def session(**values):
    known = {
        "session": SESSION, "tenant": "main", "retention": "standard", "user": "ann@example.org",
        "groups": ("dba",), "agent": "report-bot", "on_behalf_of": ("ann@example.org",),
        "run": "run-42", "target": "shop", "protocol": "postgres", "database": "shopdb",
        "source": "192.0.2.7:50312", "client": "psql", "node": "node-1", "started_ns": TS_NS,
        "frames": 2, "revision": 4,
    }  # fmt: skip
    return documents.SessionDocument(**known | values)


ENDED = {
    "state": "closed", "ended_ns": TS_NS + 2_500_000_000, "close_reason": "client", "frames": 9,
    "bytes_client": 139, "bytes_server": 420, "commands": 3, "errors": 1, "revision": 18,
}  # fmt: skip


def command(**values):
    known = {
        "session": SESSION, "epoch": 0, "n": 7, "seq": 3, "tenant": "main",
        "retention": "standard", "user": "ann@example.org", "groups": ("dba",),
        "agent": "report-bot", "run": "run-42", "target": "shop", "protocol": "postgres",
        "source": "192.0.2.7:50312", "time_ns": TS_NS, "leg": 0, "offset": 0, "length": 39,
        "text": "select * from orders where id = $1", "fingerprint": "5f2b8c1d9e3a7046",
        "effect": "read", "tables": ("orders",),
    }  # fmt: skip
    return documents.CommandDocument(**known | values)


DONE = {"version": 1, "status": "ok", "rows": 1, "bytes_out": 120, "duration_ns": 850_000_000}
FAILED = DONE | {
    "status": "error", "rows": -1, "error": "42P01", "message": 'relation "orders" does not exist',
}  # fmt: skip
REFUSED = {
    "session": JOURNAL, "user": "", "groups": (), "agent": "", "run": "", "effect": "refused",
    "version": 1, "status": "error", "text": "the token has expired", "error": "28P01",
    "message": "the token has expired", "fingerprint": "", "tables": (), "leg": -1, "length": 0,
    "seq": 12, "n": 4,
}  # fmt: skip


def journal(**values):
    nobody = {"user": "", "groups": (), "agent": "", "on_behalf_of": (), "run": "", "target": ""}
    node = {"protocol": "journal", "database": "", "source": "", "client": "sealtape"}
    return session(session=JOURNAL, **nobody, **node, **values)


# -- what comes out --------------------------------------------------------------------------------

CLASSES = {
    0: ("Base Event", 0, "Uncategorized"),
    1008: ("Event Log Activity", 1, "System Activity"),
    2004: ("Detection Finding", 2, "Findings"),
    3002: ("Authentication", 3, "Identity & Access Management"),
    3004: ("Entity Management", 3, "Identity & Access Management"),
    6002: ("Application Lifecycle", 6, "Application Activity"),
    6005: ("Datastore Activity", 6, "Application Activity"),
}
SEVERITIES = {1: "Informational", 2: "Low", 3: "Medium", 4: "High"}
SUCCESS = {"status_id": 1, "status": "Success"}
FAILURE = {"status_id": 2, "status": "Failure"}


def head(class_uid, activity_id, activity, severity, message, when=MS):
    name, category, category_name = CLASSES[class_uid]
    return {
        "time": when,
        "class_uid": class_uid, "class_name": name,
        "category_uid": category, "category_name": category_name,
        "activity_id": activity_id, "activity_name": activity,
        "type_uid": class_uid * 100 + activity_id, "type_name": f"{name}: {activity}",
        "severity_id": severity, "severity": SEVERITIES[severity],
        "message": message,
    }  # fmt: skip


def metadata(uid, code, correlation, *, tenant="main", node="node-1"):
    found = {
        "version": "1.8.0",
        "product": {"name": "Sealtape", "vendor_name": "Sealtape"},
        "uid": uid, "event_code": code, "correlation_uid": correlation,
        "log_name": "sealtape", "log_version": "1",
    }  # fmt: skip
    if tenant:
        found["tenant_uid"] = tenant
    if node:
        found["reporter"] = {"name": node}
    return {"metadata": found}


def unmapped(when=TS_NS, **ours):
    return {"unmapped": {"sealtape": {"time_ns": str(when), **ours}}}


ANN = {"name": "ann@example.org", "type_id": 1, "type": "User", "groups": [{"name": "dba"}]}
ACTOR = {"actor": {"user": ANN, "session": {"uid": NAME}, "app_name": "report-bot"}}
SHOP = {"dst_endpoint": {"name": "shop", "svc_name": "postgres"}}
CLIENT = {"src_endpoint": {"ip": "192.0.2.7", "port": 50312}}
OPENID = {"auth_protocol_id": 4, "auth_protocol": "OpenID"}
REMOTE = {"logon_type_id": 3, "logon_type": "Network", "is_remote": True}
ABOUT = {
    "target": "shop", "protocol": "postgres", "database": "shopdb", "client": "psql",
    "agent": "report-bot", "on_behalf_of": ["ann@example.org"], "run": "run-42",
    "retention": "standard",
}  # fmt: skip
NODE = ABOUT | {
    "target": "", "protocol": "journal", "database": "", "client": "sealtape", "agent": "",
    "on_behalf_of": [], "run": "",
}  # fmt: skip
TOTALS = {
    "close_reason": "client", "commands": 3, "errors": 1, "bytes_client": 139,
    "bytes_server": 420, "frames": 9,
}  # fmt: skip


def started():
    return (
        head(3002, 1, "Logon", 1, "ann@example.org opened a session on shop.")
        | metadata(f"{NAME}:0:1:0", "session-start", NAME)
        | SUCCESS
        | {
            "user": ANN,
            "session": {"uid": NAME, "created_time": MS, "is_remote": True},
            "service": {"name": "shop"},
        }
        | SHOP | CLIENT | ACTOR | OPENID | REMOTE
        | unmapped(session=NAME, epoch=0, seq=1, **ABOUT)
    )  # fmt: skip


def ended(reason="client", *, failed=False):
    when = TS_NS + 2_500_000_000
    text = f"The session of ann@example.org on shop ended: {reason}."
    return (
        head(3002, 2, "Logoff", 3 if failed else 1, text, MS + 2500)
        | metadata(f"{NAME}:0:8:0", "session-end", NAME)
        | (FAILURE if failed else SUCCESS)
        | {
            "user": ANN,
            "session": {
                "uid": NAME, "created_time": MS, "is_remote": True, "expiration_reason": reason,
            },
            "service": {"name": "shop"},
        }
        | SHOP | CLIENT | ACTOR
        | {"start_time": MS, "end_time": MS + 2500, "duration": 2500, "status_code": reason}
        | REMOTE
        | unmapped(
            when, session=NAME, epoch=0, seq=8, **ABOUT, **TOTALS | {"close_reason": reason},
        )
    )  # fmt: skip


def refused():
    text = "the token has expired"
    return (
        head(3002, 1, "Logon", 3, f"A connection to shop was refused: {text}")
        | metadata(f"{JOURNAL.hex()}:0:12:4", "session-refused", JOURNAL.hex())
        | FAILURE
        | {
            "user": {"name": "unknown", "type_id": 0, "type": "Unknown"},
            "service": {"name": "shop"},
        }
        | SHOP | CLIENT
        | {"status_detail": text, "status_code": "28P01"}
        | OPENID | REMOTE
        | unmapped(
            session=JOURNAL.hex(), epoch=0, seq=12, n=4, target="shop", protocol="postgres",
            retention="standard",
        )
    )  # fmt: skip


def statement(uid, status, severity=1, ours=None, **more):
    word = {"Running": "running", "Success": "ok", "Failure": "error"}[status["status"]]
    text = f"ann@example.org ran a statement on shop (read): {word}."
    info = {
        "uid": "5f2b8c1d9e3a7046", "query_string": "select * from orders where id = $1",
        "query_time": MS,
    }  # fmt: skip
    if "end_time" in more:
        info["bytes"] = 120
    return (
        head(6005, 4, "Query", severity, text)
        | metadata(uid, "statement", NAME)
        | status | ACTOR | CLIENT | SHOP
        | {
            "database": {"name": "shopdb", "uid": "shop", "type_id": 1, "type": "Relational"},
            "query_info": info,
            "start_time": MS,
            "table": {"name": "orders"},
        }
        | more
        | unmapped(
            session=NAME, epoch=0, seq=3, n=7, target="shop", protocol="postgres",
            effect="read", tables=["orders"], fingerprint="5f2b8c1d9e3a7046", agent="report-bot",
            on_behalf_of=["ann@example.org"], run="run-42", retention="standard", **ours,
        )
    )  # fmt: skip


def node(activity, word, message, uid, code, when=TS_NS, **ours):
    return (
        head(6002, activity, word, 1, message, when // 1_000_000)
        | metadata(uid, code, JOURNAL.hex())
        | SUCCESS
        | {"app": {"name": "Sealtape capture", "uid": "node-1"}}
        | unmapped(when, session=JOURNAL.hex(), **ours, **NODE)
    )


def indexed():
    """Cases out of the index's documents."""
    took = {"duration": 850, "end_time": MS + 850}
    done = {"version": 1, "duration_ns": "850000000", "bytes_out": 120}
    fact, boot = f"{NAME}:0:3:7", JOURNAL.hex()
    refusal = command(**REFUSED)
    stopped = TS_NS + 2_500_000_000
    yield case("session-start", started(), session())
    yield case("session-end", ended(), session(**ENDED), at=(0, 8))
    torn = session(**ENDED | {"close_reason": "aborted"})
    yield case("session-end, aborted", ended("aborted", failed=True), torn, at=(0, 8))
    yield case("session-refused", refused(), journal(), refusal)
    running = statement(fact + ":0", {"status_id": 99, "status": "Running"}, ours={"version": 0})
    yield case("statement, running", running, session(), command())
    ok = statement(fact, SUCCESS, ours=done | {"rows": 1}, **took)
    yield case("statement", ok, session(), command(**DONE))
    detail = {"status_code": "42P01", "status_detail": 'relation "orders" does not exist'}
    failed = statement(fact, FAILURE, 2, done, **took, **detail)
    yield case("statement, failed", failed, session(), command(**FAILED))
    start = node(
        3, "Start", "Capture node node-1 started.", boot + ":0:1:0", "node-start", epoch=0, seq=1
    )
    yield case("node-start", start, journal())
    stop = node(
        4, "Stop", "Capture node node-1 stopped: client.", boot + ":0:8:0", "node-end", stopped,
        epoch=0, seq=8, **TOTALS,
    )  # fmt: skip
    yield case("node-end", stop, journal(**ENDED), at=(0, 8))


def case(name, event, document, fact=None, at=None):
    found = {"name": name, "session": document.to_json().decode()}
    if fact is not None:
        found["command"] = fact.to_json().decode()
    if at is not None:
        found["close"] = {"epoch": at[0], "seq": at[1]}
    return found | {"event": line(event)}


def line(event):
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


LOG = {"log_type_id": 2, "log_type": "Application", "log_provider": "Sealtape"}


def recording(kind, activity, word, message, *, reason="", severity=1, status=SUCCESS):
    return (
        head(1008, activity, word, severity, message)
        | metadata(f"{NAME}:0:9:{kind}", kind, NAME, node="")
        | status
        | {"log_name": NAME, **LOG}
        | unmapped(
            session=NAME, epoch=0, frames=9, retention="standard", close_reason=reason,
        )
    )  # fmt: skip


def finding(kind, reason, severity, detail, *, session=NAME, epoch=0, seq=5):
    uid = f"frames-1f/0/4096/{reason}"
    if session:
        uid += f"/{session}:{epoch}:{seq}"
    members = {
        "is_alert": True,
        "finding_info": {
            "uid": uid, "title": f"Recording incident: {reason}", "desc": detail,
            "types": [reason], "created_time": MS,
            "analytic": {"uid": reason, "name": "Sealtape ingest", "type_id": 1, "type": "Rule"},
        },
    }  # fmt: skip
    if session:
        members["resources"] = [{"uid": session, "type": "recorded session"}]
    return (
        head(2004, 1, "Create", severity, detail)
        | metadata(uid, kind, session or "frames-1f/0", tenant="", node="")
        | {"status_id": 1, "status": "New"}
        | members
        | unmapped(
            reason=reason, topic="frames-1f", partition=0, offset=4096, session=session,
            epoch=epoch, seq=seq,
        )
    )  # fmt: skip


def segment():
    members = {"shard": "frames-1f/0", "n": 6, "object": "seg/v1/x.parquet", "record": RECORD}
    return (
        head(1008, 4, "Archive", 1, "Segment 6 of frames-1f/0 is sealed.")
        | metadata(f"segment:{RECORD}", "segment-sealed", "frames-1f/0", node="")
        | SUCCESS
        | {"log_name": "frames-1f/0", **LOG}
        | unmapped(**members, rows=120, bytes=70000, retention="standard")
    )


def wrapped():
    uid = f"{NAME}:0:data:auditor-0123456789abcdef"
    text = "The data key of the session was wrapped to auditor-0123456789abcdef."
    return (
        head(3004, 1, "Create", 1, text)
        | metadata(uid, "key-wrapped", NAME, node="")
        | SUCCESS
        | {"entity": {"type_id": 99, "type": "Key", "uid": uid, "name": "data"}}
        | unmapped(
            session=NAME, epoch=0, label="data", recipient="auditor-0123456789abcdef",
            suite="x25519", retention="standard",
        )
    )  # fmt: skip


TERMS = {
    "retain_for_s": 7776000, "delete_after_s": 34560000, "encryption": True,
    "policy_sha256": "00" * 32,
}  # fmt: skip


def policy():
    text = "Sessions of class standard are recorded under these terms from now on."
    entity = {
        "type_id": 5,
        "type": "Policy",
        "policy": {
            "name": "standard", "type": "retention class", "is_applied": True, "data": TERMS,
        },
    }  # fmt: skip
    return (
        head(3004, 10, "Activate", 1, text)
        | metadata(f"{NAME}:0:policy-applied", "policy-applied", NAME, node="")
        | SUCCESS
        | {"entity": entity}
        | unmapped(session=NAME, epoch=0, retention="standard")
    )


def lifecycle():
    """Cases out of the ledger's outbox."""
    of = {"session": NAME, "epoch": 0, "tenant": "main", "class": "standard"}
    frames = of | {"frames": "9"}
    text = "The first frames of the recording are sealed."
    yield row("session-open", recording("session-open", 6, "Start", text), frames)
    text = "The recording is sealed, whole and signed."
    sealed = recording("session-sealed", 4, "Archive", text, reason="client")
    yield row("session-sealed", sealed, frames | {"reason": "client"})
    text = "The recording is sealed, but frames or the last signature are missing."
    closed = recording(
        "session-closed", 4, "Archive", text, reason="client", severity=3, status=FAILURE
    )
    yield row("session-closed", closed, frames | {"reason": "client"})
    published = {
        "object": "seg/v1/x.parquet", "record": RECORD, "shard": "frames-1f/0", "n": "6",
        "tenant": "main", "class": "standard", "rows": "120", "bytes": "70000",
    }  # fmt: skip
    yield row("segment-sealed", segment(), published, key="frames-1f/0")
    found = {
        "topic": "frames-1f", "partition": 0, "offset": "4096", "session": NAME, "epoch": 0,
        "seq": "5",
    }  # fmt: skip
    text = "Frames 5 to 6 never came."
    yield row("gap", finding("gap", "gap", 3, text), found | {"reason": "gap", "detail": text})
    text = "A second frame with the same session, epoch and seq, but other content."
    clash = found | {"reason": "conflict", "detail": text}
    yield row("incident", finding("incident", "conflict", 4, text), clash)
    text = "Offsets 1 to 2 were deleted before they were read."
    lost = found | {
        "reason": "bus_lost", "detail": text, "session": "", "epoch": -1, "seq": "-1"
    }  # fmt: skip
    event = finding("incident", "bus_lost", 4, text, session="", epoch=-1, seq=-1)
    yield row("incident", event, lost, key="")
    key = of | {"label": "data", "recipient": "auditor-0123456789abcdef", "suite": "x25519"}
    yield row("key-wrapped", wrapped(), key)
    yield row("policy-applied", policy(), of | TERMS)


def row(kind, event, body, key=NAME):
    payload = canonical.encode({"v": 1, "kind": kind, **body}).decode()
    return {"kind": kind, "key": key, "at_ns": str(TS_NS), "payload": payload, "event": line(event)}


if __name__ == "__main__":
    main()
