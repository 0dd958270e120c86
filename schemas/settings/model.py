"""The settings' schema: one frozen dataclass a table of the TOML file.

Every field carries its parser and one line of documentation; `docs/config.md` is generated from
them, and the loader refuses whatever is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any

from sealtape.schemas.settings import values
from sealtape.schemas.settings.values import Secret


def setting(parse: values.Parser, doc: str, default: Any = MISSING) -> Any:
    """Return a dataclass field with its parser and its line of documentation."""
    return field(default=default, metadata={"parse": parse, "doc": doc})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSettings:
    """What this deployment is."""

    mode: str = setting(
        values.one_of("dev", "production"),
        "`dev` allows the development issuer and plaintext on loopback; `production` neither",
        "production",
    )
    node: str = setting(
        values.name,
        "name of this capture node, in every OPEN; the variable SEALTAPE_NODE takes its place",
        "node-1",
    )
    log: str = setting(
        values.text, "log origin: the name under which checkpoints are signed", "sealtape.local/log"
    )
    log_format: str = setting(
        values.one_of("text", "json"),
        "lines on standard error: `text` for people, `json` for a log store",
        "text",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Where the rooms keep what they write; relative paths are relative to the file."""

    bus: str = setting(
        values.store_url,
        "the bus: `dir:PATH?partitions=N` or `kafka://HOSTS/TOPIC`",
        "dir:bus?partitions=1",
    )
    keys: str = setting(
        values.optional(values.store_url),
        "the bus that wrapped keys travel on, with as many partitions; empty: the bus itself",
        "",
    )
    events: str = setting(
        values.store_url,
        "the bus that SIEMs read events from; its retention: at most the shortest `retain_for`",
        "dir:events?partitions=1&retention=7d",
    )
    keyring: str = setting(
        values.store_url,
        "the keyring: `sqlite:PATH` or `postgresql://HOST/DATABASE`",
        "sqlite:keyring.db",
    )
    vault: str = setting(
        values.store_url,
        "the vault: `file:PATH`, `s3://BUCKET/PREFIX`, `gs://…` or `az://…`",
        "file:vault",
    )
    ledger: str = setting(
        values.store_url,
        "the ledger: `sqlite:PATH` or `postgresql://HOST/DATABASE`",
        "sqlite:ledger.db",
    )
    index: str = setting(
        values.store_url,
        "the index: `sqlite:PATH` or `opensearch://HOSTS/PREFIX`",
        "sqlite:index.db",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """Key files. Private halves are read only by the room that needs them."""

    node: str = setting(values.text, "the node's Ed25519 signing key (capture)", "keys/node.key")
    spool: str = setting(
        values.text, "the node-local key that encrypts the spool (capture)", "keys/spool.key"
    )
    trust: str = setting(
        values.text, "which node keys are trusted (ingest, index, verify)", "trust.toml"
    )
    auditors: tuple[str, ...] = setting(
        values.texts, "public keys that recordings are wrapped to (capture)", ("keys/auditor.pub",)
    )
    indexers: tuple[str, ...] = setting(
        values.texts, "public keys that facts are wrapped to (capture)", ("keys/indexer.pub",)
    )
    auditor_private: str = setting(
        values.text,
        "the auditors' private key, a file or `transit:…` (replay, deep verification)",
        "keys/auditor.key",
    )
    indexer_private: str = setting(
        values.text,
        "the indexer's private key, a file or `transit:…`",
        "keys/indexer.key",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresListenerSettings:
    """The listener for PostgreSQL clients."""

    listen: str = setting(
        values.address, "address to listen on; port 0 takes a free one", "127.0.0.1:6432"
    )
    plaintext: str = setting(
        values.one_of("never", "loopback"),
        "whether clients on loopback may do without TLS (dev only)",
        "never",
    )
    tls_certificate: str = setting(
        values.text, "certificate chain (PEM) shown to clients", "keys/tls.crt"
    )
    tls_key: str = setting(values.text, "private key (PEM) of that certificate", "keys/tls.key")
    peers: tuple[str, ...] = setting(
        values.texts,
        "the nodes behind the same address, `NAME=HOST:PORT` of their own listeners: "
        "a CancelRequest for a session of theirs is passed on",
        (),
    )
    peers_tls: str = setting(
        values.one_of("disable", "require", "verify-full"), "TLS towards peers", "verify-full"
    )
    peers_ca: str | None = setting(
        values.text, "CA certificates (PEM) of the peers; else the system's", None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureSettings:
    """The capture node."""

    spool: str = setting(values.text, "folder of the write-ahead spool", "spool")
    spool_limit: int = setting(
        values.size_from(4096), "most bytes a worker's spool may take", 1 << 30
    )
    workers: int = setting(values.whole(1, 64), "worker processes sharing the listening port", 1)
    loop: str = setting(
        values.one_of("auto", "uvloop", "asyncio"),
        "event loop; `auto` takes uvloop if present",
        "auto",
    )
    frame_bytes: int = setting(
        values.parse_size, "a DATA frame is cut at this many bytes (at most 64KiB)", 65536
    )
    frame_ms: int = setting(
        values.whole(10, 5000), "… or when its first byte is this many milliseconds old", 200
    )
    checkpoint_frames: int = setting(
        values.whole(1, 4096), "the session's tree is signed every so many frames", 256
    )
    checkpoint_s: float = setting(
        values.parse_duration, "… and within this time of any unsigned frame", 5.0
    )
    state_every: int = setting(
        values.parse_size, "a STATE frame (a place to start replay) every so many bytes", 64 << 20
    )
    grace_s: float = setting(
        values.parse_duration,
        "how long sessions stall on a full or failing spool before they are ended",
        10.0,
    )
    heartbeat_s: float = setting(
        values.period(0.1), "how often the journal lists the live sessions", 10.0
    )
    max_connections: int = setting(
        values.whole(1, 1_000_000), "most client connections of a worker", 2000
    )
    max_unauthenticated: int = setting(
        values.whole(1, 1_000_000), "most of them not yet authenticated", 256
    )
    max_per_address: int = setting(
        values.whole(1, 1_000_000), "most unauthenticated ones from one address", 64
    )
    auth_timeout_s: float = setting(values.period(0.1), "time a client has to authenticate", 10.0)
    metrics: str = setting(
        values.optional(values.address),
        "address of `/metrics`, `/healthz` and `/readyz`; empty: none",
        "",
    )
    log: str = setting(
        values.optional(values.http_url),
        "where ingest serves the log (`log.serve`): `https://HOST:PORT`; empty: no beacon in OPEN,"
        " no receipts",
        "",
    )
    log_ca: str | None = setting(
        values.text, "CA certificates (PEM) of that server; else the system's", None
    )
    log_policy: str = setting(
        values.text, "the node's own policy over the log: keys, witnesses, quorum", "log.policy"
    )
    receipt_s: float = setting(
        values.parse_duration,
        "a receipt that has not come so long after CLOSE is overdue: an alarm, and the spool is"
        " sent again",
        600.0,
    )
    postgres: PostgresListenerSettings = field(default_factory=PostgresListenerSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class DevelopmentIssuerSettings:
    """The development issuer: `sealtape token` signs with it. Refused outside `dev`."""

    key: str = setting(values.text, "the issuer's private key", "keys/issuer.key")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginSettings:
    """How `sealtape login` gets a person's token: the provider's device flow."""

    client: str = setting(values.text, "the public client's id at the provider", "sealtape-cli")
    scope: str = setting(values.text, "scopes asked for", "openid")
    token: str = setting(
        values.one_of("access_token", "id_token"),
        "which token is shown to the gateway; its `aud` must be `identity.audience`",
        "access_token",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySettings:
    """How a client's OIDC token is verified."""

    issuer: str = setting(values.text, "the only `iss` accepted")
    audience: str = setting(values.text, "the `aud` a token must name", "sealtape")
    jwks: str = setting(values.key_source, "the issuer's key set: `file:PATH` or `https://…`")
    ca: str | None = setting(
        values.text, "CA certificates (PEM) of the provider; else the system's", None
    )
    algorithms: tuple[str, ...] = setting(
        values.texts, "accepted signature algorithms", ("ES256", "RS256", "EdDSA")
    )
    leeway_s: float = setting(
        values.parse_duration, "clock difference allowed for `exp`, `iat`, `nbf`", 10.0
    )
    user_claim: str = setting(values.text, "claim that names the user", "sub")
    groups_claim: str = setting(values.text, "claim that lists the groups", "groups")
    agent_claims: tuple[str, ...] = setting(
        values.texts,
        "claims that name an acting agent, first found wins; a dot goes into an object",
        ("act.sub", "azp"),
    )
    on_behalf_of_claims: tuple[str, ...] = setting(
        values.texts,
        "claims that name whom the agent acts for, first found wins",
        ("on_behalf_of",),
    )
    run_claims: tuple[str, ...] = setting(
        values.texts, "claims that name the agent's run", ("run", "run_id")
    )
    development: DevelopmentIssuerSettings | None = None
    login: LoginSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """The sealing of segments."""

    segment_bytes: int = setting(
        values.parse_size, "a segment is cut at this many payload bytes", 64 << 20
    )
    segment_s: float = setting(values.parse_duration, "… or when its first frame is this old", 20.0)
    lease_s: float = setting(
        values.period(0.1), "a partition's lease runs out after this time", 15.0
    )
    worker: str = setting(
        values.optional(values.name),
        "name of this process in leases, another one for each; empty: `deployment.node`",
        "",
    )
    metrics: str = setting(
        values.optional(values.address),
        "address of `/metrics`, `/healthz` and `/readyz`; empty: none",
        "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """The transparency log over everything sealed; the ingest room writes it."""

    signer: str = setting(
        values.optional(values.store_url),
        "who holds the log's key: `file:PATH?state=FILE`, or `unix:SOCKET` of a `sealtape signer`; "
        "empty: this process does not write the log",
        "file:keys/log.key",
    )
    policy: str = setting(
        values.text,
        "the operator's own policy: the log's keys, the witnesses to ask, their quorum",
        "log.policy",
    )
    checkpoint_s: float = setting(values.period(0.01), "how often a log that grows is signed", 10.0)
    heartbeat_s: float = setting(
        values.period(1), "a heartbeat is an entry at least this often", 600.0
    )
    final_s: float = setting(
        values.parse_duration,
        "an epoch that misses frames is sealed in the log when nothing came for so long",
        120.0,
    )
    silent_s: float = setting(
        values.parse_duration,
        "a node whose journal brought nothing for so long is silent: an incident",
        60.0,
    )
    missing_s: float = setting(
        values.parse_duration,
        "a session number that later ones passed so long ago is missing: an incident",
        300.0,
    )
    timestamps: tuple[str, ...] = setting(
        values.texts,
        "RFC 3161 time-stamping authorities: `NAME=URL`, and behind it what is known of each: PEM"
        " files `roots=FILE` (then its answers are verified), `chain=FILE`, `ca=FILE` for `https`",
        (),
    )
    timestamp_every: float = setting(
        values.period(1), "how often they are asked, besides once a day", 3600.0
    )
    witness_timeout_s: float = setting(
        values.period(0.1), "time a witness or an authority has to answer", 5.0
    )
    witness_ca: str | None = setting(
        values.text,
        "CA certificates (PEM) that `https` witnesses are verified by, all of them; else the"
        " system's",
        None,
    )
    serve: str = setting(
        values.optional(values.address),
        "address where the log, its beacon and receipts are read; empty: none",
        "",
    )
    tls_certificate: str = setting(
        values.optional(values.text),
        "certificate chain (PEM) shown there; empty: plain HTTP",
        "",
    )
    tls_key: str = setting(
        values.optional(values.text), "private key (PEM) of that certificate", ""
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexerSettings:
    """The index."""

    refresh_s: float = setting(
        values.parse_duration, "how often new facts are written to the index", 0.3
    )
    lease_s: float = setting(
        values.period(0.1), "a partition's lease runs out after this time", 15.0
    )
    worker: str = setting(
        values.optional(values.name),
        "name of this process in leases, another one for each; empty: `deployment.node`",
        "",
    )
    metrics: str = setting(
        values.optional(values.address),
        "address of `/metrics`, `/healthz` and `/readyz`; empty: none",
        "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifySettings:
    """Scheduled verification: `sealtape verify --all --schedule`."""

    bytes_per_day: int = setting(
        values.parse_size, "how much of what is sealed is read again in a day", 50 << 30
    )
    every_s: float = setting(
        values.parse_duration,
        "how often the part that is due is read; no more than its share",
        900.0,
    )
    again_s: float = setting(
        values.parse_duration, "nothing is read again before this time is over", 86400.0
    )
    window: float = setting(
        values.period(1), "the share that was verified is that of so many days", 30 * 86400.0
    )
    state: str = setting(
        values.text, "the verifier's own file of what it has read and found", "verification.db"
    )
    metrics: str = setting(
        values.optional(values.address),
        "address of `/metrics`, `/healthz` and `/readyz`; empty: none",
        "",
    )
    webhook: str = setting(
        values.optional(values.http_url),
        "where each finding is sent: `https://HOST/PATH`; empty: nowhere",
        "",
    )
    webhook_secret: Secret | None = setting(  # noqa: RUF009 - it is dataclasses.field
        values.secret,
        'the secret that signs what is sent: `{ file = "…" }`, `{ env = "…" }`,'
        ' `{ provider = "…" }`',
        None,
    )
    webhook_ca: str | None = setting(
        values.text, "CA certificates (PEM) of that server; else the system's", None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """A retention class: how long recordings are kept, and whether they are encrypted."""

    retain_for: float = setting(
        values.parse_duration, "nothing may delete before this time", 90 * 86400.0
    )
    delete_after: float = setting(
        values.parse_duration, "something must delete by this time", 400 * 86400.0
    )
    encryption: bool = setting(
        values.boolean, "encrypt payloads to the auditors' and indexers' keys", default=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSettings:
    """A target: a named resource that clients reach through the gateway."""

    protocol: str = setting(values.one_of("postgres"), "wire protocol", "postgres")
    address: str = setting(values.address, "where the target listens: `host:port`")
    database: str = setting(values.text, "database that the bare target name opens")
    databases: tuple[str, ...] = setting(
        values.texts, 'databases also allowed as `target/database`; `["*"]` for any', ()
    )
    user: str = setting(values.text, "the target's user that the gateway logs in as")
    password: Secret | None = setting(  # noqa: RUF009 - it is dataclasses.field
        values.secret,
        'that user\'s password: `{ file = "…" }`, `{ env = "…" }`, `{ provider = "…" }`',
        None,
    )
    tls: str = setting(
        values.one_of("disable", "require", "verify-full"), "TLS towards the target", "verify-full"
    )
    tls_ca: str | None = setting(
        values.text, "CA certificates (PEM) for `verify-full`; else the system's", None
    )
    groups: tuple[str, ...] = setting(
        values.texts, 'groups that may open it; `["*"]` for every verified identity'
    )
    retention: str = setting(values.name, "retention class", "standard")
    tenant: str = setting(values.name, "tenant that the recordings belong to", "main")
    level: str = setting(
        values.one_of("spooled", "durable", "acked"),
        "what a byte must have survived before it is forwarded",
        "spooled",
    )
    on_failure: str = setting(
        values.one_of("end", "continue"),
        "when recording fails: end sessions, or state a gap",
        "end",
    )
    on_seal: str = setting(
        values.one_of("none", "receipt"),
        "`receipt`: the spool keeps a session until the log's receipt for it is verified",
        "none",
    )
    on_expiry: str = setting(
        values.one_of("end", "keep"), "at the token's `exp`: end the session, or keep it", "end"
    )
    max_session: float = setting(values.parse_duration, "longest session; 0 for no limit", 0.0)
    full_text: bool = setting(values.boolean, "index statements with their literals", default=False)
    parameters: bool = setting(values.boolean, "index bound parameters", default=False)
    replication: bool = setting(values.boolean, "allow replication connections", default=False)
    startup_parameters: tuple[str, ...] = setting(
        values.texts, "startup parameters allowed besides the harmless ones", ()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole file, checked.

    Attributes:
        base: the folder that relative paths start from.
        warnings: what is legal but should be changed, in words.
    """

    base: str
    deployment: DeploymentSettings
    stores: StoreSettings
    keys: KeySettings
    capture: CaptureSettings
    identity: IdentitySettings | None
    ingest: IngestSettings
    log: LogSettings
    indexer: IndexerSettings
    verify: VerifySettings
    retention: Mapping[str, RetentionSettings]
    targets: Mapping[str, TargetSettings]
    warnings: tuple[str, ...] = ()
