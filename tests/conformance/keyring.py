"""What every keyring adapter must do. Use: `class TestX(KeyringConformance)` with a `keyring`."""

import asyncio
from dataclasses import replace

import pytest

from sealtape.ingest.keyring import Keyring
from sealtape.schemas.errors import Exists, FormatError
from sealtape.schemas.messages import KeyMessage
from sealtape.schemas.wraps import Wrap

A, B, C = bytes(16), bytes([1]) * 16, bytes([2]) * 16
D = bytes([1]) + bytes(15)
SUITE = "x25519-sha256-aes256gcm"
HYBRID = "mlkem768x25519-sha256-aes256gcm"

R1, R2 = "auditor-00000000000000a1", "auditor-00000000000000a2"


def key_message(
    session=A, epoch=0, label="data", recipient="auditor-00000000000000a1", sealed=b"s" * 80
):
    suite = SUITE if len(sealed) == 80 else HYBRID
    return KeyMessage(session, epoch, label, recipient, suite, sealed, "main", "standard")


def as_wrap(message):
    return Wrap(
        message.session,
        message.epoch,
        message.label,
        message.recipient,
        message.suite,
        message.sealed,
    )


class KeyringConformance:
    async def test_what_is_put_is_got(self, keyring: Keyring):
        messages = [
            key_message(epoch=epoch, label=label, recipient=recipient, sealed=bytes([n]) * 80)
            for n, (epoch, label, recipient) in enumerate(
                (e, lb, r) for e in (1, 0) for lb in ("data", "facts") for r in (R2, R1)
            )
        ]
        for message in messages:
            assert await keyring.put(message) is True
        data = sorted(
            (m for m in messages if m.label == "data"), key=lambda m: (m.epoch, m.recipient)
        )
        assert await keyring.get(A, None, "data") == [as_wrap(m) for m in data]
        assert await keyring.get(A, 1, "data") == [as_wrap(m) for m in data if m.epoch == 1]
        assert await keyring.get(A, None, "data", R1) == [
            as_wrap(m) for m in data if m.recipient == R1
        ]
        assert await keyring.get(A, 2, "data") == []
        assert await keyring.get(B, None, "data") == []

    async def test_put_is_idempotent(self, keyring: Keyring):
        for _ in range(3):
            assert await keyring.put(key_message()) is True
        assert await keyring.get(A, 0, "data") == [as_wrap(key_message())]

    async def test_the_first_wrap_stays(self, keyring: Keyring):
        await keyring.put(key_message())
        for other in (key_message(sealed=b"t" * 80), key_message(sealed=b"t" * 1168)):
            with pytest.raises(Exists):
                await keyring.put(other)
        assert await keyring.get(A, 0, "data") == [as_wrap(key_message())]

    async def test_what_no_reader_could_use_is_refused(self, keyring: Keyring):
        for bad in (
            key_message(sealed=b"short"),
            key_message(label="other"),
            key_message(recipient="nobody"),
            replace(key_message(), suite="rot13"),
            replace(key_message(), tenant="a\0b"),
            replace(key_message(), retention="A class"),
        ):
            for call in (keyring.put, keyring.dispute):
                with pytest.raises(FormatError):
                    await call(bad)
        assert [session async for session in keyring.sessions()] == []

    async def test_a_disputed_wrap_is_kept_aside(self, keyring: Keyring):
        await keyring.put(key_message())
        for _ in range(2):
            await keyring.dispute(key_message(sealed=b"t" * 80))
            await keyring.dispute(key_message())
        assert await keyring.get(A, 0, "data") == [as_wrap(key_message())]
        assert await keyring.disputed(A) == [as_wrap(key_message(sealed=b"t" * 80))]
        assert await keyring.destroy(A) == 2
        assert await keyring.disputed(A) == []

    async def test_destroyed_is_for_ever(self, keyring: Keyring):
        await keyring.put(key_message())
        await keyring.put(key_message(label="facts", epoch=3))
        await keyring.put(key_message(session=B))
        assert await keyring.destroyed(A) is False
        assert await keyring.destroy(A) == 2
        assert await keyring.destroy(A) == 0
        assert await keyring.destroyed(A) is True
        assert await keyring.put(key_message()) is False
        await keyring.dispute(key_message(sealed=b"u" * 80))
        assert await keyring.get(A, None, "data") == []
        assert await keyring.disputed(A) == []
        assert await keyring.get(B, 0, "data") == [as_wrap(key_message(session=B))]

    async def test_an_unknown_session_can_be_destroyed(self, keyring: Keyring):
        assert await keyring.destroy(C) == 0
        assert await keyring.put(key_message(session=C)) is False
        assert await keyring.get(C, None, "data") == []

    async def test_many_can_be_destroyed_at_once(self, keyring: Keyring):
        for session in (A, B, C):
            await keyring.put(key_message(session=session))
            await keyring.put(key_message(session=session, label="facts"))
        assert await keyring.destroy_many([]) == 0
        assert await keyring.destroy_many([A, C, D, A]) == 4
        assert await keyring.destroy_many([A, C, D]) == 0
        assert [s async for s in keyring.sessions()] == [B]
        for session in (A, C, D):
            assert await keyring.destroyed(session) is True
            assert await keyring.put(key_message(session=session)) is False
        assert await keyring.get(B, 0, "data") == [as_wrap(key_message(session=B))]

    async def test_putting_while_others_destroy_brings_nothing_back(self, keyring: Keyring):
        for number in range(10):
            session = bytes([number]) * 16
            calls = [keyring.put(key_message(session=session, epoch=n)) for n in range(6)]
            calls.insert(3, keyring.destroy(session))
            outcomes = await asyncio.gather(*calls)
            assert outcomes[3] <= 6
            assert await keyring.get(session, None, "data") == []

    async def test_sessions_are_listed_in_order(self, keyring: Keyring):
        for session in (C, A, B):
            await keyring.put(key_message(session=session))
            await keyring.put(key_message(session=session, label="facts"))
        assert [s async for s in keyring.sessions()] == [A, B, C]
        assert [s async for s in keyring.sessions(after=A)] == [B, C]
        await keyring.destroy(B)
        assert [s async for s in keyring.sessions()] == [A, C]
        last = bytes([255]) * 16
        for session in (D, last):
            await keyring.put(key_message(session=session))
        assert [s async for s in keyring.sessions()] == [A, D, C, last]
        assert [s async for s in keyring.sessions(after=D)] == [C, last]
        assert [s async for s in keyring.sessions(after=last)] == []

    async def test_puts_at_once_are_all_kept(self, keyring: Keyring):
        messages = [key_message(epoch=epoch) for epoch in range(30)]
        assert all(await asyncio.gather(*map(keyring.put, messages)))
        assert await keyring.get(A, None, "data") == [as_wrap(m) for m in messages]

    async def test_closing_twice_is_fine(self, keyring: Keyring):
        await keyring.close()
        await keyring.close()
