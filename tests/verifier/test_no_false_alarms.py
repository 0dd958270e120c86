"""Of whatever was honestly recorded all three verifications say what is true, never more.

The deployments are `chances`: each session in them is whole, empty, recovered, held, erased, live,
or has lost something. `sealtape verify` on the stores, and both verifiers on its bundle, have to
find just that. Here the second one has its signatures verified by the library: its own arithmetic
takes long, and `test_second` compares the two.
"""

import functools
import shutil

import pytest

from sealtape.schemas import notes
from sealtape.schemas.errors import FormatError
from sealtape.schemas.verify.bundle import verify_bundle
from tests.factories.deployments import audited
from tests.verifier.chances import SORTS, record
from tests.verifier.judging import FILE, loaded

SESSIONS = 60
EVER = 10_000


@functools.lru_cache(maxsize=4096)
def verified(public, message, signature):
    """As `verify_ed25519` of the second verifier."""
    try:
        notes.Verifier("name", public).verify(message, signature)
    except FormatError as exc:
        raise ValueError(exc.message) from exc


second = loaded(compile(FILE.read_text(encoding="utf-8"), str(FILE), "exec"), verified)


async def no_false_alarm(folder, seed):
    recorded = await record(folder / "site", seed, SESSIONS)
    site, short = recorded.site, set()
    async for chance, data in recorded.bundles(folder):
        one = verify_bundle(data, recorded.policy)
        two = second.report(second.Verifier(data, second.Policy(recorded.rules.encode())))
        said = (seed, chance.sort, one.findings, two["findings"])
        assert (one.verdict, two["verdict"]) == (chance.verdict, chance.verdict), said
        assert [each["verdict"] for each in two["findings"] if each["verdict"] == "tampered"] == []
        short |= {chance.session.hex()} if chance.verdict == "incomplete" else set()
    report = (await audited(site, policy=recorded.policy)).report
    assert {finding.verdict for finding in report.findings} <= {"incomplete"}, (seed, report)
    assert {finding.session for finding in report.findings} == short, seed
    assert report.sessions == SESSIONS
    return {chance.sort for chance in recorded.chances}


@pytest.mark.parametrize("seed", range(5))
async def test_no_false_alarm(tmp_path, seed):
    sorts = await no_false_alarm(tmp_path, seed)
    assert seed or sorts == set(SORTS)


@pytest.mark.soak
async def test_no_false_alarm_ever(tmp_path):
    for seed in range(1000, 1000 + -(-EVER // SESSIONS)):
        await no_false_alarm(tmp_path / str(seed), seed)
        shutil.rmtree(tmp_path / str(seed))
