"""The settings: one TOML file, its schema as frozen dataclasses, loaded by a pure function."""

from sealtape.schemas.settings.loader import load_settings
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
from sealtape.schemas.settings.reference import Setting, reference
from sealtape.schemas.settings.values import Secret, parse_duration, parse_size

__all__ = [
    "CaptureSettings",
    "DeploymentSettings",
    "DevelopmentIssuerSettings",
    "IdentitySettings",
    "IndexerSettings",
    "IngestSettings",
    "KeySettings",
    "LogSettings",
    "LoginSettings",
    "PostgresListenerSettings",
    "RetentionSettings",
    "Secret",
    "Setting",
    "Settings",
    "StoreSettings",
    "TargetSettings",
    "VerifySettings",
    "load_settings",
    "parse_duration",
    "parse_size",
    "reference",
]
