"""Makes sealtape.json, the dashboard that Grafana imports.

    python deploy/grafana/dashboard.py > deploy/grafana/sealtape.json

A row is a title and its panels; a panel is a title, a unit, and queries with their legends (and
`stat` for one number instead of a graph). After changing panels in Grafana, change them here too:
a test compares. For Grafana 10 or newer: Dashboards, New, Import.
"""

import json

CAPTURE, INGEST, INDEXER = "sealtape_capture_", "sealtape_ingest_", "sealtape_indexer_"
WITNESS, MONITOR = "sealtape_witness_", "sealtape_monitor_"
VERIFY = "sealtape_verify_"
PROCESS = '{job=~"sealtape.*", instance=~"$instance"}'
WHERE = '{instance=~"$instance"}'
ONE, W = "{{instance}}", "{{instance}}/{{worker}}"
T, P = "{{topic}}/{{partition}}", "{{partition}}"
WIDTH, HEIGHT, COLUMNS = 8, 7, 24
STAT = "stat"


def total(metric, by=""):
    """The sum of a gauge, by some labels."""
    return f"sum by ({by}) ({metric}{WHERE})" if by else f"sum({metric}{WHERE})"


def most(metric, by=""):
    """The largest of a gauge, by some labels."""
    return f"max by ({by}) ({metric}{WHERE})" if by else f"max({metric}{WHERE})"


def rate(metric, by="instance"):
    """How often a second a counter grew, by some labels."""
    return f"sum by ({by}) (rate({metric}{WHERE}[$__rate_interval]))"


def grown(metric, time, by=""):
    """By how much a counter grew in some time."""
    inner = f"increase({metric}{WHERE}[{time}])"
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


def quantiles(metric):
    """The median and more of a histogram."""
    inner = f"sum by (le) (rate({metric}_bucket{WHERE}[$__rate_interval]))"
    return [(f"histogram_quantile({q}, {inner})", f"p{q * 100:g}") for q in (0.5, 0.9, 0.99)]


def rates(metrics):
    """A graph of several counters: `{what it is called: metric}`."""
    return [(rate(metric), f"{name} {ONE}") for name, metric in metrics.items()]


def members(room):
    """Who holds how many partitions."""
    held = total(room + "partitions_held", "topic, instance" if room == INGEST else "instance")
    return [
        (held, f"{{{{topic}}}} {ONE}" if room == INGEST else ONE),
        (total(room + "partitions_claiming"), "claiming"),
        (most(room + "partitions"), "there are"),
    ]


def trouble(room):
    """What makes a room begin anew."""
    return rates({"failures": room + "failures_total", "fenced": room + "fenced_total"})


USED = f"{CAPTURE}spool_bytes{WHERE} / {CAPTURE}spool_limit_bytes{WHERE}"
EXPIRES = f"min by (instance) ({CAPTURE}certificate_expiry_timestamp_seconds{WHERE}) - time()"
CPU = f"rate(process_cpu_seconds_total{PROCESS}[$__rate_interval])"

ROWS = {
    "At a glance": [
        ("Sessions live", "none", [(total(CAPTURE + "sessions_live"), "")], STAT),
        (
            "Workers up",
            "none",
            [
                (total(CAPTURE + "worker_up"), "capture"),
                (most(INGEST + "workers_live"), "ingest"),
                (most(INDEXER + "workers_live"), "indexers"),
            ],
            STAT,
        ),
        (
            "In the last day",
            "none",
            [
                (grown(INGEST + "gaps_total", "1d"), "gaps"),
                (grown(INGEST + "incidents_total", "1d"), "incidents"),
                (grown(INGEST + "quarantined_total", "1d"), "quarantined"),
                (grown(CAPTURE + "gaps_total", "1d"), "unrecorded"),
            ],
            STAT,
        ),
        ("Captured until searchable", "s", quantiles(INDEXER + "searchable_seconds")),
        ("Bus to seal", "s", quantiles(INGEST + "seal_seconds")),
        (
            "Oldest that is not yet …",
            "s",
            [
                (most(CAPTURE + "oldest_unacked_seconds"), "on the bus"),
                (most(INGEST + "oldest_unsealed_seconds"), "sealed"),
                (most(INDEXER + "oldest_unindexed_seconds"), "indexed"),
                (most(INGEST + "events_oldest_seconds"), "told to SIEMs by ingest"),
            ],
        ),
    ],
    "Capture: sessions": [
        ("Live, by target", "none", [(total(CAPTURE + "sessions_live", "target"), "{{target}}")]),
        (
            "Opened and ended",
            "ops",
            [
                (rate(CAPTURE + "sessions_opened_total", "target"), "opened {{target}}"),
                (rate(CAPTURE + "sessions_ended_total", "reason"), "ended: {{reason}}"),
            ],
        ),
        (
            "Refused, by reason",
            "ops",
            [
                (rate(CAPTURE + "refused_total", "reason"), "{{reason}}"),
                (rate(CAPTURE + "strangers_total", "kind"), "no session: {{kind}}"),
            ],
        ),
        ("Bytes recorded, by leg", "Bps", [(rate(CAPTURE + "bytes_total", "leg"), "{{leg}}")]),
        (
            "Frames and commands",
            "ops",
            rates({"frames": CAPTURE + "frames_total", "commands": CAPTURE + "commands_total"}),
        ),
        (
            "Connections",
            "none",
            [
                (total(CAPTURE + "connections", "instance"), ONE),
                (total(CAPTURE + "connections_unauthenticated", "instance"), f"strangers {ONE}"),
                (total(CAPTURE + "connections_limit", "instance"), f"limit {ONE}"),
            ],
        ),
    ],
    "Capture: spool and bus": [
        ("Spool in use", "percentunit", [(USED, W)]),
        ("Not acknowledged by the bus", "bytes", [(CAPTURE + "unshipped_bytes" + WHERE, W)]),
        ("Oldest unacknowledged", "s", [(CAPTURE + "oldest_unacked_seconds" + WHERE, W)]),
        (
            "Stalled, unrecorded",
            "none",
            [
                (total(CAPTURE + "sessions_stalled"), "stalled now"),
                (total(CAPTURE + "sessions_unrecorded"), "unrecorded now"),
                (rate(CAPTURE + "stalls_total", "reason"), "stalls a second: {{reason}}"),
            ],
        ),
        (
            "Failing",
            "none",
            [
                (most(CAPTURE + "spool_failing", "instance"), f"spool {ONE}"),
                (most(CAPTURE + "bus_failing", "instance"), f"bus {ONE}"),
                (most(CAPTURE + "identity_keys_failing", "instance"), f"identity keys {ONE}"),
                (total(CAPTURE + "orphans", "instance"), f"orphans {ONE}"),
                (total(CAPTURE + "draining", "instance"), f"draining {ONE}"),
                (rate(CAPTURE + "bus_errors_total", "code"), "bus errors a second: {{code}}"),
            ],
        ),
        ("Waited for a signature", "s", quantiles(CAPTURE + "checkpoint_seconds")),
        ("Certificate expires in", "s", [(EXPIRES, ONE)], STAT),
        (
            "Workers started again in an hour",
            "none",
            [(grown(CAPTURE + "worker_restarts_total", "1h", "instance"), ONE)],
        ),
    ],
    "Ingest": [
        ("Behind the bus's end", "none", [(total(INGEST + "lag", "topic, partition"), T)]),
        (
            "Oldest unsealed",
            "s",
            [(most(INGEST + "oldest_unsealed_seconds", "topic, partition"), T)],
        ),
        (
            "Retention of the bus used up unsealed",
            "percentunit",
            [(most(INGEST + "retention_used_ratio", "topic, partition"), T)],
        ),
        (
            "Sealed",
            "ops",
            rates(
                {
                    "frames": INGEST + "frames_total",
                    "segments": INGEST + "segments_total",
                    "again": INGEST + "duplicates_total",
                    "events": INGEST + "events_relayed_total",
                }
            ),
        ),
        ("Payload sealed", "Bps", [(rate(INGEST + "bytes_total"), ONE)]),
        (
            "Incidents in an hour",
            "none",
            [(grown(INGEST + "incidents_total", "1h", "reason") + " > 0", "{{reason}}")],
        ),
        ("Partitions held", "none", members(INGEST)),
        ("Trouble", "ops", trouble(INGEST)),
        ("Heard from the ledger", "s", [(INGEST + "heartbeat_age_seconds" + WHERE, ONE)]),
    ],
    "Log": [
        (
            "Entries",
            "none",
            [
                (most(INGEST + "log_size"), "in the log"),
                (most(INGEST + "log_signed_size"), "signed"),
                (most(INGEST + "log_witnessed_size"), "witnessed"),
            ],
        ),
        (
            "Not witnessed yet",
            "none",
            [
                (most(INGEST + "log_pending"), "entries"),
                (most(INGEST + "log_pending_seals"), "seals of sessions"),
            ],
        ),
        ("Oldest seal not witnessed yet", "s", [(most(INGEST + "log_oldest_pending_seconds"), "")]),
        (
            "Since the last",
            "s",
            [
                (f"min({INGEST}log_witnessed_age_seconds{WHERE})", "witnessed checkpoint"),
                (f"min({INGEST}log_timestamp_age_seconds{WHERE})", "time-stamp"),
            ],
        ),
        (
            "Written by",
            "none",
            [
                (INGEST + "log_held" + WHERE, ONE),
                (INGEST + "log_stopped" + WHERE + " > 0", f"stopped: {ONE}"),
            ],
        ),
        ("Added", "ops", [(rate(INGEST + "log_appended_total"), ONE)]),
        (
            "What witnesses answer",
            "ops",
            [
                (rate(INGEST + "witness_answers_total", "witness, state"), "{{witness}} {{state}}"),
                (
                    grown(INGEST + "witness_findings_total", "1h", "witness") + " > 0",
                    "{{witness}} in an hour: the log or it has lied",
                ),
            ],
        ),
        (
            "What time-stamping authorities answer in an hour",
            "none",
            [
                (
                    grown(INGEST + "timestamp_answers_total", "1h", "authority, state"),
                    "{{authority}} {{state}}",
                )
            ],
        ),
        (
            "Receipts that nodes wait for",
            "none",
            [
                (total(CAPTURE + "receipts_waiting"), "waiting"),
                (total(CAPTURE + "receipts_overdue"), "overdue"),
                (total(CAPTURE + "receipts_contradicting"), "contradicting"),
                (grown(CAPTURE + "receipts_total", "1h"), "verified in an hour"),
                (total(CAPTURE + "log_failing"), "nodes without the log"),
            ],
        ),
        (
            "Witness: seen and cosigned",
            "none",
            [
                (most(WITNESS + "seen_size", "log"), "{{log}}"),
                (grown(WITNESS + "cosigned_total", "1h", "log"), "{{log}} cosigned in an hour"),
                (
                    grown(WITNESS + "refused_total", "1h", "reason") + " > 0",
                    "{{reason}} in an hour",
                ),
            ],
        ),
        (
            "Witness: since it cosigned",
            "s",
            [
                (
                    "time() - " + most(WITNESS + "last_cosigned_timestamp_seconds", "log"),
                    "{{log}}",
                )
            ],
        ),
        (
            "Monitor: read",
            "none",
            [
                (most(MONITOR + "read_size", "shard"), "entries of shard {{shard}}"),
                (total(MONITOR + "sessions"), "sessions"),
            ],
        ),
        (
            "Monitor: rules broken",
            "none",
            [
                (most(MONITOR + "violations", "rule") + " > 0", "{{rule}}"),
                (total(MONITOR + "unacknowledged"), "not acknowledged"),
                (total(MONITOR + "late"), "late"),
                (total(MONITOR + "objections"), "objections"),
                (grown(MONITOR + "forks_total", "1h"), "forks in an hour"),
            ],
        ),
    ],
    "Indexer": [
        ("Behind the bus's end", "none", [(total(INDEXER + "lag", "partition"), P)]),
        ("Segments not indexed", "none", [(total(INDEXER + "segments_behind", "partition"), P)]),
        ("Oldest unindexed", "s", [(most(INDEXER + "oldest_unindexed_seconds", "partition"), P)]),
        (
            "Indexed",
            "ops",
            rates(
                {
                    "commands": INDEXER + "commands_total",
                    "frames": INDEXER + "frames_total",
                    "segments": INDEXER + "segments_total",
                    "events": INDEXER + "events_sent_total",
                }
            ),
        ),
        (
            "Passed over",
            "ops",
            rates(
                {
                    "unreadable": INDEXER + "unreadable_total",
                    "malformed": INDEXER + "malformed_total",
                    "destroyed": INDEXER + "destroyed_total",
                    "early": INDEXER + "early_total",
                    "unanswered": INDEXER + "unanswered_total",
                    "anew": INDEXER + "restarted_total",
                }
            ),
        ),
        ("Trouble", "ops", trouble(INDEXER)),
        ("Partitions held", "none", members(INDEXER)),
        ("Heard from the ledger", "s", [(INDEXER + "heartbeat_age_seconds" + WHERE, ONE)]),
    ],
    "Scheduled verification": [
        (
            "Verified lately",
            "percentunit",
            [(VERIFY + "share" + WHERE, ONE)],
        ),
        (
            "Findings that stand",
            "none",
            [
                (most(VERIFY + "findings", "verdict"), "{{verdict}}"),
                (most(VERIFY + "alarms_waiting"), "alarms not taken"),
            ],
            STAT,
        ),
        (
            "Not verified for",
            "s",
            [
                (VERIFY + "oldest_seconds" + WHERE, f"the oldest {ONE}"),
                (f"time() - {VERIFY}last_timestamp_seconds{WHERE}", f"anything {ONE}"),
            ],
        ),
        (
            "Objects",
            "none",
            [
                (most(VERIFY + "objects"), "sealed"),
                (most(VERIFY + "unverified_objects"), "never verified"),
            ],
        ),
        ("Read", "Bps", [(rate(VERIFY + "read_bytes_total"), ONE)]),
        (
            "Steps",
            "ops",
            rates(
                {
                    "objects": VERIFY + "read_objects_total",
                    "passes": VERIFY + "passes_total",
                    "found": VERIFY + "found_total",
                    "failures": VERIFY + "failures_total",
                    "alarms sent": VERIFY + "alarms_sent_total",
                    "alarms not taken": VERIFY + "alarm_failures_total",
                }
            ),
        ),
    ],
    "Processes": [
        ("CPU", "percentunit", [(CPU, f"{ONE} {{{{worker}}}}")]),
        (
            "Memory",
            "bytes",
            [(f"process_resident_memory_bytes{PROCESS}", f"{ONE} {{{{worker}}}}")],
        ),
        (
            "Versions",
            "none",
            [(f"count by (room, version) (sealtape_build_info{WHERE})", "{{room}} {{version}}")],
            STAT,
        ),
    ],
}


def panel(number, x, y, title, unit, queries, kind="timeseries"):
    """One panel."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    targets = [
        {
            "datasource": source,
            "editorMode": "code",
            "expr": expression,
            "legendFormat": legend or "__auto",
            "range": kind == "timeseries",
            "instant": kind == "stat",
            "refId": chr(ord("A") + place),
        }
        for place, (expression, legend) in enumerate(queries)
    ]
    defaults = {"unit": unit, "min": 0} if unit != "s" or kind != "stat" else {"unit": unit}
    options = {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi"},
    }
    if kind == "stat":
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "textMode": "auto"}
    return {
        "id": number,
        "type": kind,
        "title": title,
        "datasource": source,
        "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": targets,
    }


def panels():
    found, y = [], 0
    for title, inside in ROWS.items():
        number = len(found) + 1
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        found.append({"id": number, "type": "row", "title": title, "gridPos": place, "panels": []})
        y += 1
        for place, each in enumerate(inside):
            x = place * WIDTH % COLUMNS
            if place and not x:
                y += HEIGHT
            found.append(panel(len(found) + 1, x, y, *each))
        y += HEIGHT
    return found


def dashboard():
    instances = 'label_values({__name__=~"sealtape_build_info"}, instance)'
    return {
        "uid": "sealtape",
        "title": "Sealtape",
        "description": "Capture, ingest and index of a Sealtape deployment; see docs/metrics.md.",
        "tags": ["sealtape"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "utc",
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                },
                {
                    "name": "instance",
                    "label": "Instance",
                    "type": "query",
                    "datasource": {"type": "prometheus", "uid": "${datasource}"},
                    "query": {"query": instances, "refId": "instances"},
                    "refresh": 2,
                    "multi": True,
                    "includeAll": True,
                    "allValue": ".*",
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "panels": panels(),
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1))
