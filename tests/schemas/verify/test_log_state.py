import pytest

from sealtape.schemas.errors import FormatError
from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.verify.log_state import MAX_SHARDS, SeenLog
from tests.house import sources

LOG = "sealtape.example/log"
SEEN = SeenLog.of(
    LOG, [Checkpoint(f"{LOG}/1", 300, b"\1" * 32), Checkpoint(f"{LOG}/2", 7, b"\2" * 32)]
)


def test_both_ways():
    assert SeenLog.from_json(SEEN.to_json()) == SEEN
    assert SeenLog.from_json(SeenLog.of(LOG, []).to_json()).checkpoints == ()
    assert SEEN.of_shard(2) == SEEN.checkpoints[1]
    assert SEEN.of_shard(3) is None


def test_the_page_has_it():
    page = sources.text("docs/spec/seen.md")
    assert f"```text\n{SEEN.to_json().decode()}```" in page


@pytest.mark.parametrize("end", range(len(SEEN.to_json())))
def test_cut_off_anywhere(end):
    with pytest.raises(FormatError):
        SeenLog.from_json(SEEN.to_json()[:end])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"v":1', b'"v":2'),
        (b'"seen"', b'"seem"'),
        (b"log/2", b"log/3"),
        (b"log/1", b"log/01"),
        (b'"log":"sealtape', b'"log":"another'),
        (b"\n", b"\n\n"),
        (b"}\n", b"} "),
        (b'"v":1', b'"u":2,"v":1'),
    ],
)
def test_other_forms_are_refused(old, new):
    data = SEEN.to_json()
    assert old in data
    with pytest.raises(FormatError):
        SeenLog.from_json(data.replace(old, new))


def test_shards_from_the_first_one_on():
    with pytest.raises(FormatError, match="another place"):
        SeenLog.of(LOG, [SEEN.checkpoints[1]])
    many = [Checkpoint(f"{LOG}/{n}", 1, b"\1" * 32) for n in range(1, MAX_SHARDS + 2)]
    with pytest.raises(FormatError, match="at most"):
        SeenLog.of(LOG, many)
    with pytest.raises(FormatError):
        SeenLog.of("not a name", [])
