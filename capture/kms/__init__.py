"""Where private keys are kept: in a file, or sealed by a key management service."""

from sealtape.capture.kms.base import Kms, check_kms, open_kms, read_private_key

__all__ = ["Kms", "check_kms", "open_kms", "read_private_key"]
