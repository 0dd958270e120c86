"""The keyring: wrapped session keys, and the one place where destroying them shreds a session."""

from sealtape.ingest.keyring.base import Keyring, open_keyring

__all__ = ["Keyring", "open_keyring"]
