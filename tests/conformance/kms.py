"""What every place of private keys must do. Use: `class TestX(KmsConformance)`, fixture `kms`.

`kms` is an empty place; `secrets` lists what must never be shown beside the key itself.
"""

import logging
import os

import pytest

from sealtape.capture.kms import Kms
from sealtape.schemas.errors import Exists, KeyUnavailable
from sealtape.schemas.wraps import HYBRID, X25519, generate


class KmsConformance:
    @pytest.fixture
    def secrets(self):
        return []

    @pytest.mark.parametrize("suite", [X25519, HYBRID])
    def test_what_is_kept_is_read(self, kms: Kms, suite):
        private, _ = generate("auditor", suite, os.urandom)
        kms.keep(private)
        assert kms.read() == private
        assert kms.read() == private

    def test_nothing_is_overwritten(self, kms: Kms):
        first, _ = generate("auditor", X25519, os.urandom)
        second, _ = generate("indexer", X25519, os.urandom)
        kms.keep(first)
        for private in (first, second):
            with pytest.raises(Exists):
                kms.keep(private)
        assert kms.read() == first

    def test_an_empty_place_says_so(self, kms: Kms):
        with pytest.raises(KeyUnavailable) as caught:
            kms.read()
        assert caught.value.hint

    def test_no_secret_is_shown(self, kms: Kms, secrets, caplog):
        private, _ = generate("auditor", X25519, os.urandom)
        with caplog.at_level(logging.DEBUG):
            kms.keep(private)
            kms.read()
        shown = repr(kms) + caplog.text
        for secret in (private.raw.hex(), private.text().split()[-1], *secrets):
            assert secret not in shown
