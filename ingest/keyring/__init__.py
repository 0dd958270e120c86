"""The keyring: wrapped session keys, and the one place where destroying them shreds a session."""

from sealtape.ingest.keyring.base import Keyring, check_keyring, open_keyring, prepare_keyring

__all__ = ["Keyring", "check_keyring", "open_keyring", "prepare_keyring"]
