from sealtape.ingest.ledger.rows import Head
from sealtape.ingest.parquet import row_of
from sealtape.ingest.track import Track, close_reason
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.tree import CompactRange
from tests.factories.sessions import build_session


def filled(built, count=None, head=None, start=0):
    track = Track(built.session, 0, head)
    track.open(built.opening, built.frames[0].payload, built.ephemeral.verifier)
    for offset, frame in enumerate(built.frames[start:count], start):
        track.append(row_of(frame), offset, 7)
    return track


def tree_of(built, size):
    tree = CompactRange()
    for frame in built.frames[:size]:
        tree.append(frame.leaf())
    return tree


def test_roots_are_those_of_the_frames():
    built = build_session(commands=5)
    track = filled(built)
    assert track.next_seq == len(built.frames)
    assert track.waiting
    for size in range(1, len(built.frames) + 1):
        assert track.root_at(size) == tree_of(built, size).root()
    assert track.root_at(len(built.frames) + 1) is None


def test_roots_go_on_from_the_head():
    built = build_session(commands=5)
    tree = tree_of(built, 6)
    head = Head(built.session, 0, 0, 6, tree.nodes, 5, 5, 6, 0, "", b"")
    track = filled(built, head=head, start=6)
    assert track.root_at(6) == tree.root()
    assert track.root_at(5) is None
    assert track.root_at(len(built.frames)) == built.tree.root()


def test_there_is_no_root_past_a_gap():
    built = build_session(commands=5)
    track = filled(built, count=4)
    track.jump(6, 9)
    track.append(row_of(built.frames[6]), 6, 9)
    assert track.root_at(4) == tree_of(built, 4).root()
    assert track.root_at(7) is None
    assert track.pieces[-1].gap.lo == 4
    assert track.pieces[-1].gap.hi == 6
    sealed = Head(
        built.session, 0, 6, 8, tree_of(built, 0).nodes or (b"x" * 32,), 5, 5, 0, 2, "", b""
    )
    assert Track(built.session, 0, sealed).root_at(8) is None
    beginning = Track(built.session, 0, None)
    beginning.jump(3, 0)
    assert beginning.root_at(3) is None


def test_waiting_rows_are_found_in_every_piece():
    built = build_session(commands=5)
    track = filled(built, count=4)
    track.jump(6, 9)
    track.append(row_of(built.frames[6]), 6, 9)
    assert track.waiting_row(2)[1].seq == 2
    assert track.waiting_row(6)[0] is track.pieces[1]
    assert track.waiting_row(5) is None


def test_rivals_are_taken_only_when_they_have_the_root():
    built = build_session(commands=3)
    track = filled(built)
    piece = track.pieces[0]
    assert not track.swap_rivals(5, built.tree.root())
    true = piece.rows[4]
    forged = row_of(Frame(built.session, 0, 4, true.ts_ns, 3, 2, 0, b"forged" * 9))
    piece.rivals[4] = (forged, 99)
    assert not track.swap_rivals(5, built.tree.root())
    swapped = CompactRange()
    for row in (*piece.rows[:4], forged):
        swapped.append(row.leaf)
    assert track.swap_rivals(5, swapped.root())
    assert (piece.rows[4], piece.offsets[4]) == (forged, 99)
    assert piece.rivals == {4: (true, 4)}
    assert track.swap_rivals(len(built.frames), built.tree.root())
    assert (piece.rows[4], piece.offsets[4]) == (true, 4)
    assert piece.run == built.tree


def test_a_smaller_signature_does_not_replace_a_larger():
    built = build_session(commands=3)
    track = filled(built)
    track.sign(7, b"seven", attested=True)
    track.sign(5, b"five", attested=True)
    assert (track.pieces[0].signed, track.pieces[0].note) == (7, "seven")


def test_the_end_is_remembered():
    built = build_session(commands=1)
    assert filled(built).ended
    assert not filled(built, count=3).ended
    head = Head(built.session, 0, 0, 0, (), 5, 5, 0, 0, "client", b"")
    assert Track(built.session, 0, head).ended


def test_held_offsets_are_those_outside_the_pieces():
    built = build_session(commands=1)
    track = filled(built, count=3)
    track.early[4] = (row_of(built.frames[4]), 17, 0)
    track.ahead[5] = (b"", 18, 0)
    assert sorted(track.held_offsets()) == [17, 18]


def test_the_reason_of_the_last_close():
    rows = [row_of(frame) for frame in build_session(close="expired").frames]
    assert close_reason(rows) == "expired"
    assert close_reason(rows[:-1]) is None
    broken = row_of(Frame(bytes(16), 0, 9, 0, Kind.CLOSE, 0, 0, b"[]"))
    assert close_reason([*rows, broken]) == "unreadable"
