import os

import pytest

from sealtape.capture.epoch import Subject, Terms, begin, close
from sealtape.schemas.bodies import Close, Continues, parse_open
from sealtape.schemas.errors import SealtapeError
from sealtape.schemas.frames import Frame, Kind, Suite
from sealtape.schemas.keys import Packer
from sealtape.schemas.messages import CheckpointMessage, KeyMessage, decode
from sealtape.schemas.notes import Verifier, open_checkpoint
from tests.capture.stage import CLASS, IDENT, Stage

SESSION = bytes(range(16))


def opened(tmp_path, *, epoch=0, continues=None, encryption=True):
    stage = Stage(tmp_path)
    subject = Subject(
        type="session",
        session=SESSION,
        number=1,
        boot=bytes(16),
        worker=0,
        ident=IDENT,
        terms=Terms(retention=CLASS, encryption=encryption),
    )
    return begin(
        stage.identity(bytes(16)),
        subject,
        epoch=epoch,
        ts_ns=100,
        anchor_ns=90,
        continues=continues,
        packer=Packer(),
        random=os.urandom,
    )


def test_keys_come_before_open_and_the_checkpoint_after_ident(tmp_path):
    _, messages = opened(tmp_path)
    found = [decode(message) for message in messages]
    assert [type(message) for message in found] == [KeyMessage] * 3 + [Frame] * 2 + [
        CheckpointMessage
    ]
    opening, _ = parse_open(found[3].payload, None)
    assert (found[3].kind, found[4].kind) == (Kind.OPEN, Kind.IDENT)
    assert found[5].size == 2
    checkpoint = open_checkpoint(found[5].note, Verifier.from_vkey(opening.key))
    assert checkpoint.origin == opening.origin
    assert (opening.anchor_ns, found[3].ts_ns) == (90, 100)


def test_every_epoch_has_its_own_keys_salt_and_signer(tmp_path):
    first, one = opened(tmp_path)
    second, two = opened(tmp_path, epoch=1, continues=Continues(0, 2, bytes(32)))
    keys = [parse_open(decode(m[3]).payload, None)[0] for m in (one, two)]
    assert keys[0].salt != keys[1].salt
    assert keys[0].key.partition("+")[2] != keys[1].key.partition("+")[2]
    assert first.salt != second.salt
    assert decode(one[4]).payload[:32] != decode(two[4]).payload[:32]


def test_without_encryption_nothing_is_wrapped(tmp_path):
    _, messages = opened(tmp_path, encryption=False)
    found = [decode(message) for message in messages]
    assert [type(message) for message in found] == [Frame, Frame, CheckpointMessage]
    assert found[1].suite == Suite.SALTED


def test_time_never_goes_backwards(tmp_path):
    epoch, _ = opened(tmp_path)
    epoch.seal(Kind.CLOCK, 200, b"{}")
    with pytest.raises(SealtapeError):
        epoch.seal(Kind.CLOCK, 199, b"{}")


def test_closing_signs_everything(tmp_path):
    epoch, _ = opened(tmp_path)
    frame, checkpoint = map(decode, close(epoch, 300, Close("client", (0, 0, 0, 0))))
    assert (frame.kind, frame.seq) == (Kind.CLOSE, 2)
    assert checkpoint.size == epoch.size == epoch.signed == 3
