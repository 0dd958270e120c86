"""The vault: sealed objects, created once and never changed."""

from sealtape.ingest.vault.base import (
    Vault,
    check_key,
    check_vault,
    is_swapped_key,
    open_vault,
    prepare_vault,
)

__all__ = [
    "Vault",
    "check_key",
    "check_vault",
    "is_swapped_key",
    "open_vault",
    "prepare_vault",
]
