"""Time-stamps by OpenSSL and by sigstore's server, verified by us; and by `openssl ts -verify`."""

import asyncio
import hashlib
import json

import pytest

from sealtape.capture.outbound import destination
from sealtape.ingest.tlog.timestamping import Authority, Timestamping, read_authorities
from sealtape.schemas.errors import FormatError, SignatureError
from sealtape.schemas.timestamps import make_request, read_timestamp, verify_timestamp
from tests.factories import openssl
from tests.factories.openssl import OpensslAuthority, verifies
from tests.vectors.generate_timestamps import FOLDER

NOTE = b"sealtape.example/log/1\n300\na witnessed checkpoint\n"
DIGEST = hashlib.sha256(NOTE).digest()


@pytest.fixture(autouse=True)
def _openssl():
    openssl.need()


KINDS = {
    "plain": {},
    "RSA": {"kind": "rsa"},
    "microseconds": {"clock_precision_digits": "6"},
    "with its root inside": {"certs": "root.pem", "ess_cert_id_chain": "yes"},
    "named by SHA-1": {"ess_cert_id_alg": "sha1"},
    "SHA-384, ordered, with its name": {
        "signer_digest": "sha384", "ordering": "yes", "tsa_name": "yes", "accuracy": "",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_as_the_authority(kind, tmp_path):
    authority = OpensslAuthority(tmp_path / "tsa", **KINDS[kind])
    tsr = authority.reply(make_request(DIGEST, 2**100 + 7))
    found = read_timestamp(tsr)
    info = verify_timestamp(tsr, DIGEST, authority.root)
    assert found.nonce == 2**100 + 7
    assert info.authority == "CN=OpenSSL authority"
    assert info.policy == "1.3.6.1.4.1.32473.2"
    assert info.accuracy_ns == (0 if "accuracy" in KINDS[kind] else 1_500_100_000)
    said = openssl.openssl("ts", "-reply", "-in", "reply.tsr", "-text", cwd=tmp_path / "tsa")
    assert f"Serial number: 0x{info.serial:02X}" in said
    assert verifies(tmp_path / "check", tsr, NOTE, authority.root)
    with pytest.raises(FormatError):
        verify_timestamp(tsr, hashlib.sha256(NOTE + b"x").digest(), authority.root)
    assert not verifies(tmp_path / "check", tsr, NOTE + b"x", authority.root)


def test_openssl_with_certs_writes_them_unsorted(tmp_path):
    # If it sorts them one day, test_timestamps.py still has both orders.
    authority = OpensslAuthority(tmp_path / "tsa", certs="root.pem", kind="rsa")
    tsr = authority.reply(make_request(DIGEST, 1))
    found = read_timestamp(tsr)
    assert len(found.certificates) == 2
    assert (found.sorted_bytes == tsr) == (
        tsr.index(min(found.certificates)) < tsr.index(max(found.certificates))
    )


def test_another_root_of_the_same_name(tmp_path):
    one, other = (OpensslAuthority(tmp_path / name) for name in ("one", "other"))
    tsr = one.reply(make_request(DIGEST, 1))
    for chain in (b"", one.root):
        with pytest.raises(SignatureError):
            verify_timestamp(tsr, DIGEST, other.root, chain)
        assert not verifies(tmp_path / "check", tsr, NOTE, other.root, chain)


def test_openssl_reads_our_request(tmp_path):
    (tmp_path / "request.tsq").write_bytes(make_request(DIGEST, 0xABCDEF))
    said = openssl.openssl("ts", "-query", "-in", "request.tsq", "-text", cwd=tmp_path)
    for line in ("Version: 1", "Hash Algorithm: sha256", "Nonce: 0xABCDEF",
                 "Certificate required: yes"):  # fmt: skip
        assert line in said


def test_openssl_agrees_on_the_vectors(tmp_path):
    vectors = json.loads((FOLDER / "timestamps.json").read_text(encoding="utf-8"))
    for accepted, cases in ((True, vectors["accepted"]), (False, vectors["refused"])):
        for one in cases:
            said = verifies(
                tmp_path / "check",
                bytes.fromhex(one["answer"]),
                one["stamped"].encode(),
                one["roots"].encode(),
                one["chain"].encode(),
            )
            # It does not look behind the answer's end.
            assert said == (accepted or one["name"] == "a byte behind"), one["name"]


async def test_sigstore_as_the_authority(timestamp_server, tmp_path):
    _, between, root = timestamp_server.chain()
    (tmp_path / "roots.pem").write_bytes(root)
    (tmp_path / "chain.pem").write_bytes(between)
    entry = f"sigstore={timestamp_server.url} roots=roots.pem chain=chain.pem"
    asking = Timestamping(read_authorities([entry], tmp_path))
    (stamp,) = await asking.stamp(DIGEST)
    (status,) = asking.snapshot()
    assert status.state == "ok"
    assert abs(status.offset_s) < 5
    info = verify_timestamp(stamp.der, DIGEST, root, stamp.chain_pem)
    assert info.time_ns == status.time_ns
    assert info.authority == "CN=Test TSA Timestamping,O=local"
    assert verifies(tmp_path / "check", stamp.der, NOTE, root, stamp.chain_pem)
    assert not verifies(tmp_path / "check", stamp.der, NOTE[1:], root, stamp.chain_pem)
    with pytest.raises(SignatureError):
        verify_timestamp(stamp.der, DIGEST, root)
    harmed = bytearray(stamp.der)
    for at in range(0, len(harmed), 7):
        harmed[at] ^= 1
        with pytest.raises((FormatError, SignatureError)):
            verify_timestamp(bytes(harmed), DIGEST, root, stamp.chain_pem)
        harmed[at] ^= 1


async def test_two_authorities_of_which_one_dies_and_comes_back(
    timestamp_server, timestamp_alone, tmp_path
):
    authorities = [
        Authority(name, destination(server.url, what="test"))
        for name, server in (("steady", timestamp_server), ("other", timestamp_alone))
    ]
    asking = Timestamping(authorities, timeout_s=2.0)
    assert [one.name for one in await asking.stamp(DIGEST)] == ["steady", "other"]
    await asyncio.to_thread(timestamp_alone.pause)
    assert [one.name for one in await asking.stamp(DIGEST)] == ["steady"]
    assert asking.snapshot()[1].reason == "no answer in time"
    await asyncio.to_thread(timestamp_alone.resume)
    await asyncio.to_thread(timestamp_alone.kill)
    assert [one.name for one in await asking.stamp(DIGEST)] == ["steady"]
    assert asking.snapshot()[1].state == "down"
    await asyncio.to_thread(timestamp_alone.start)
    assert len(await asking.stamp(DIGEST)) == 2
    assert asking.snapshot()[1].answers == {"ok": 2, "down": 2}
