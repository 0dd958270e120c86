import pytest

from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log, kinds, read_log


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "lab")


async def test_a_recorded_session_is_opened_and_sealed_in_the_log(site):
    built = site.session(commands=4)
    await seal(site, [built])
    await grow_log(site)
    entries, checkpoint = await read_log(site)
    assert checkpoint.origin == f"{site.settings.deployment.log}/1"
    found = kinds(entries)
    assert found[0] == "log"
    assert found[-1] == "heartbeat"
    rest = [kind for kind in found if kind not in ("log", "key", "heartbeat")]
    assert rest == ["session-open", "segment", "session-seal"]
    opened = entries[found.index("session-open")]
    sealed = entries[found.index("session-seal")]
    assert (opened.session, opened.number) == (built.session, 1)
    assert (sealed.frames, sealed.root) == (len(built.frames), built.tree.root())
    assert sealed.complete
