"""From the text of a settings file to `Settings`: pure, so anything can call it with a string."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

from sealtape.schemas.errors import SettingsError
from sealtape.schemas.settings import values
from sealtape.schemas.settings.model import (
    CaptureSettings,
    DeploymentSettings,
    DevelopmentIssuerSettings,
    IdentitySettings,
    IndexerSettings,
    IngestSettings,
    KeySettings,
    LoginSettings,
    LogSettings,
    PostgresListenerSettings,
    RetentionSettings,
    Settings,
    StoreSettings,
    TargetSettings,
    VerifySettings,
)

# A dataclass field that is itself a table of the file.
TABLES: Mapping[tuple[type, str], type] = {
    (Settings, "deployment"): DeploymentSettings,
    (Settings, "stores"): StoreSettings,
    (Settings, "keys"): KeySettings,
    (Settings, "capture"): CaptureSettings,
    (CaptureSettings, "postgres"): PostgresListenerSettings,
    (Settings, "identity"): IdentitySettings,
    (IdentitySettings, "development"): DevelopmentIssuerSettings,
    (IdentitySettings, "login"): LoginSettings,
    (Settings, "ingest"): IngestSettings,
    (Settings, "log"): LogSettings,
    (Settings, "indexer"): IndexerSettings,
    (Settings, "verify"): VerifySettings,
}
# … or a table of tables whose keys the user chooses.
NAMED_TABLES: Mapping[str, type] = {"retention": RetentionSettings, "targets": TargetSettings}
OPTIONAL_TABLES = frozenset({"identity", "development", "login"})

UNSAID_RETENTION_S = 7 * 86400
"""How long a topic of Kafka keeps messages when its URL does not say (docs/kafka.md)."""
_RETENTION = re.compile(r"[?&]retention=([^&]*)")

T = TypeVar("T")


def load_settings(text: str, *, base: str, node: str = "") -> Settings:
    """Return the checked settings of a TOML text.

    Args:
        text: the file's content.
        base: the folder that relative paths start from.
        node: takes the place of `deployment.node` unless empty, so that nodes can share a file.

    Raises:
        SettingsError: naming the key and what was expected there.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        msg = f"The settings are not valid TOML: {exc}."
        raise SettingsError(msg, hint="Correct that place and start again.") from exc
    known = [name for owner, name in TABLES if owner is Settings] + list(NAMED_TABLES)
    _refuse_unknown(document, known, "")
    if node and isinstance(document.setdefault("deployment", {}), dict):
        document["deployment"]["node"] = node
    tables: dict[str, Any] = {
        name: _optional_table(document.get(name), kind, name)
        for (owner, name), kind in TABLES.items()
        if owner is Settings
    }
    for name, kind in NAMED_TABLES.items():
        tables[name] = _named_tables(document.get(name, {}), kind, name)
    tables["retention"] = tables["retention"] or {"standard": RetentionSettings()}
    settings = Settings(base=base, **tables, warnings=tuple(_warnings(tables)))
    _check(settings)
    return settings


def _optional_table(given: Any, kind: type[T], path: str) -> T | None:
    if given is None and path.rpartition(".")[2] in OPTIONAL_TABLES:
        return None
    return _table({} if given is None else given, kind, path)


def _table(given: Any, kind: type[T], path: str) -> T:
    if not isinstance(given, dict):
        msg = f"`{path}` must be a table."
        raise SettingsError(msg, hint=f"Write it as [{path}] with its keys below.")
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    _refuse_unknown(given, list(known), path)
    return kind(**{name: _field(given, kind, item, path) for name, item in known.items()})


def _field(given: dict[str, Any], kind: type, item: Field[Any], path: str) -> Any:
    here = f"{path}.{item.name}"
    nested = TABLES.get((kind, item.name))
    if nested is not None:
        return _optional_table(given.get(item.name), nested, here)
    if item.name not in given:
        if item.default is MISSING:
            msg = f"`{here}` is missing: {item.metadata['doc']}."
            raise SettingsError(msg, hint=f"Add `{item.name} = …` to [{path}].")
        return item.default
    try:
        return item.metadata["parse"](given[item.name])
    except ValueError as exc:
        msg = f"`{here}` must be {exc}."
        raise SettingsError(msg, hint=f"It is: {item.metadata['doc']}.") from exc


def _named_tables(given: Any, kind: type[T], path: str) -> dict[str, T]:
    if not isinstance(given, dict):
        msg = f"`{path}` must hold one table a name."
        raise SettingsError(msg, hint=f"Write [{path}.NAME] with its keys below.")
    tables: dict[str, T] = {}
    for name, content in given.items():
        try:
            values.name(name)
        except ValueError as exc:
            msg = f"`{path}.{name}`: a name here must be {exc}."
            raise SettingsError(msg, hint="Rename it.") from exc
        tables[name] = _table(content, kind, f"{path}.{name}")
    return tables


def _refuse_unknown(given: Mapping[str, Any], known: list[str], path: str) -> None:
    for key in given:
        if key in known:
            continue
        where = f"{path}.{key}" if path else key
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        meant = (
            f"Did you mean `{near[0]}`?"
            if near
            else "Known here: " + ", ".join(sorted(known)) + "."
        )
        msg = f"`{where}` is not a setting."
        raise SettingsError(msg, hint=meant)


def _warnings(tables: Mapping[str, Any]) -> list[str]:
    secrets = {f"targets.{name}.password": t.password for name, t in tables["targets"].items()}
    secrets["verify.webhook_secret"] = tables["verify"].webhook_secret
    return _events_warning(tables) + [
        f"`{where}` stands in the settings file itself; "
        "move it to a file or a variable: { file = … } or { env = … }."
        for where, secret in secrets.items()
        if secret is not None and secret.source == "inline"
    ]


def _events_warning(tables: Mapping[str, Any]) -> list[str]:
    """Nothing can be deleted from a topic by session, so it must not outlast a class's promise."""
    url = tables["stores"].events
    given = _RETENTION.search(url)
    kept = f"{UNSAID_RETENTION_S}s" if url.startswith("kafka:") else "0s"
    try:
        seconds = values.parse_duration(given[1] if given else kept)
    except ValueError:
        return []  # whoever opens the bus says what is wrong with its URL
    name, shortest = min(tables["retention"].items(), key=lambda item: item[1].retain_for)
    if 0 < seconds <= shortest.retain_for:
        return []
    length = f"for {seconds:.0f} s" if seconds else "for ever"
    text = (
        f"`stores.events` keeps events {length}, longer than class {name!r} keeps "
        f"recordings (`retain_for`, {shortest.retain_for:.0f} s); shorten `retention=`."
    )
    return [text]


def _check(settings: Settings) -> None:
    """Refuse what is right key by key and wrong together."""
    problems = [
        *_check_targets(settings),
        *_check_production(settings),
        *_check_limits(settings),
    ]
    if problems:
        message, hint = problems[0]
        raise SettingsError(message, hint=hint)


def _check_targets(settings: Settings) -> list[tuple[str, str]]:
    problems = []
    for name, target in settings.targets.items():
        if target.retention not in settings.retention:
            known = ", ".join(sorted(settings.retention))
            wanted = target.retention
            message = f"`targets.{name}.retention`: there is no class `{wanted}`."
            problems.append((message, f"Add [retention.{wanted}] or take one of: {known}."))
        # `dev` serves the log to itself.
        asks = target.on_seal == "receipt" and not settings.capture.log
        if asks and settings.deployment.mode != "dev":
            message = f"`targets.{name}.on_seal`: without `capture.log` no receipt can be had."
            problems.append((message, "Name the log's server there: https://HOST:PORT."))
    for name, retention in settings.retention.items():
        if retention.delete_after < retention.retain_for:
            problems.append(
                (
                    f"`retention.{name}`: delete_after is shorter than retain_for.",
                    "Nothing can be deleted before the time it must be kept.",
                )
            )
    return problems


def _check_production(settings: Settings) -> list[tuple[str, str]]:
    if settings.deployment.mode == "dev":
        return []
    problems = []
    if settings.capture.postgres.plaintext != "never":
        problems.append(
            (
                "`capture.postgres.plaintext` is allowed only in `dev`.",
                'Set it to "never", or deployment.mode to "dev".',
            )
        )
    if settings.identity is not None and settings.identity.development is not None:
        problems.append(
            (
                "`identity.development` is the development issuer, refused outside `dev`.",
                "Remove the table and name your own identity provider in [identity].",
            )
        )
    return problems


def _check_limits(settings: Settings) -> list[tuple[str, str]]:
    if not 4096 <= settings.capture.frame_bytes <= 65536:
        return [("`capture.frame_bytes` must be from 4KiB to 64KiB.", "64KiB is the default.")]
    if not settings.verify.bytes_per_day or settings.verify.every_s <= 0:
        message = "`verify.bytes_per_day` and `verify.every_s` must be above 0."
        return [(message, "To verify nothing, do not start `sealtape verify --all --schedule`.")]
    return []
