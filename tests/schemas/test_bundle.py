"""A bundle taken apart and put together: names, sums, notes, hashes, paths, frames, keys."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import bundle, tree
from sealtape.schemas.bundle import (
    FragmentPath,
    FrameReader,
    check_file,
    encode_about,
    encode_frame,
    encode_hashes,
    encode_key,
    inclusion_root,
    open_bundle,
    pack_bundle,
    parse_hashes,
    parse_keys,
    parse_paths,
    parts_without,
    record_lines,
    split_note,
    whole_note,
)
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import parse_header
from tests.vectors.bundle_parts import SESSION, apart, leaf, note, packed, zipped
from tests.vectors.generate_bundle import FILE, built, whole, with_ml_dsa

VECTORS = json.loads(FILE.read_text(encoding="utf-8"))
FILES = whole()


def refused(files, match=None):
    with pytest.raises(FormatError, match=match) as caught:
        open_bundle(packed(files))
    return caught.value


def test_what_a_bundle_has():
    found = open_bundle(packed(FILES))
    assert (found.session, found.size) == (SESSION, 10)
    assert (found.checkpoints, found.timestamps, found.epochs) == ((10,), (), (0,))
    assert list(found.entries) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert found.entries[0] == FILES["entries/0.json"]
    assert found.bytes_of("frames/0.bin") == FILES["frames/0.bin"]
    assert found.bytes_of("frames/1.bin") is None
    assert list(found.files) == VECTORS["list"].split()


def test_it_is_packed_as_the_page_says():
    assert pack_bundle(FILES) == packed(FILES)
    assert encode_about(SESSION, 10) == FILES["bundle.json"]


@pytest.mark.parametrize(
    "name",
    ["README.txt", "bundle.json", "inclusion", "entries/0.json", "checkpoints/10",
     "fragments/0.jsonl", "fragments/0.paths"],
)  # fmt: skip
def test_files_that_must_be_there(name):
    files = dict(FILES)
    del files[name]
    assert refused(files).context == {"file": name}


def test_the_sums_must_be_there():
    with pytest.raises(FormatError, match="SHA256SUMS is missing"):
        open_bundle(zipped(FILES))


@pytest.mark.parametrize(
    "name",
    ["policy.toml", "entries/00.json", "entries/x.json", "entries/1.txt", "entries", "a/b",
     "checkpoints/0", "checkpoints/10.txt", "checkpoints/9223372036854775808",
     "timestamps/0/one.tsr", "timestamps/10/One.tsr", "timestamps/10/one.txt", "timestamps/10",
     "frames/0", "frames/4294967296.bin", "keys/0.json", "fragments/0.txt", "../x", ""],
)  # fmt: skip
def test_names_that_no_bundle_has(name):
    assert "no bundle has a file" in refused({**FILES, name: b""}).message


@pytest.mark.parametrize(
    "more",
    [
        {"checkpoints/9.mldsa": b""},
        {"checkpoints/9.consistency": b""},
        {"timestamps/9/one.tsr": b"", "timestamps/9/one.pem": b""},
        {"timestamps/10/one.tsr": b""},
        {"timestamps/10/one.pem": b""},
        {"fragments/1.jsonl": b""},
        {"fragments/1.paths": b""},
    ],
)
def test_files_that_need_others(more):
    assert "is missing" in refused({**FILES, **more}).message


def test_time_stamps():
    more = {"timestamps/10/one.tsr": b"", "timestamps/10/one.pem": b"", "frames/7.bin": b""}
    found = open_bundle(packed({**FILES, **more}))
    assert (found.timestamps, found.epochs) == (((10, "one"),), (0, 7))


@pytest.mark.parametrize(
    ("name", "size"),
    [("README.txt", 65_536), ("entries/0.json", 65_535), ("bundle.json", 1024)],
)
def test_files_that_are_too_large(name, size):
    assert "are read" in refused({**FILES, name: b"x" * (size + 1)}).message
    check_file(name, size)
    with pytest.raises(FormatError, match="are read"):
        check_file(name, size + 1)


@pytest.mark.parametrize(
    "about",
    [
        b"{}",
        b"",
        b"[]",
        FILES["bundle.json"].replace(b'"v":1', b'"v":2'),
        FILES["bundle.json"].replace(b'"bundle"', b'"bag"'),
        FILES["bundle.json"].replace(b'"10"', b'"0"'),
        FILES["bundle.json"].replace(b'"10"', b'"010"'),
        FILES["bundle.json"].replace(b'"v":1', b'"v":1,"x":1'),
        FILES["bundle.json"].replace(SESSION.hex().encode(), b"00"),
    ],
)
def test_what_a_bundle_says_of_itself(about):
    assert refused({**FILES, "bundle.json": about}).context == {"file": "bundle.json"}


def sums():
    return open_bundle(packed(FILES)).bytes_of("SHA256SUMS")


def test_sums_name_the_file_that_was_changed():
    for name in FILES:
        if name != "bundle.json":
            changed = {**FILES, name: FILES[name][:-1] + b"\n\n", "SHA256SUMS": sums()}
            with pytest.raises(FormatError) as caught:
                open_bundle(zipped(changed))
            assert caught.value.context == {"file": name}


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"\n",
        lambda data: data[:-1],
        lambda data: data + b"no line",
        lambda data: data + b"\xff\n",
        lambda data: b"".join(data.splitlines(keepends=True)[::-1]),
    ],
)
def test_sums_that_are_no_sums(change):
    with pytest.raises(FormatError) as caught:
        open_bundle(zipped({**FILES, "SHA256SUMS": change(sums())}))
    assert caught.value.context == {"file": "SHA256SUMS"}


def test_a_file_that_the_sums_do_not_have():
    lines = sums().splitlines(keepends=True)
    with pytest.raises(FormatError) as caught:
        open_bundle(zipped({**FILES, "SHA256SUMS": b"".join(lines[1:])}))
    assert caught.value.context == {"file": "README.txt"}


# -- notes -----------------------------------------------------------------------------------------


def ml_dsa():
    files = with_ml_dsa()
    return files["checkpoints/10"], files["checkpoints/10.mldsa"]


def test_a_note_apart_and_whole():
    rest, lines = ml_dsa()
    whole_ = whole_note(rest, lines)
    assert split_note(whole_) == (rest, lines)
    assert whole_.count(b"\n\xe2\x80\x94 ") == 4
    assert whole_note(rest, None) == rest
    assert split_note(rest) == (rest, b"")


def test_lines_of_ml_dsa_stand_apart():
    rest, lines = ml_dsa()
    with pytest.raises(FormatError, match="file of their own"):
        whole_note(whole_note(rest, lines), None)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:-1],
        lambda lines: b"",
        lambda lines: b"\n",
        lambda lines: lines + lines,
        lambda lines: lines + b"2" + lines[1:],
        lambda lines: b"9" + lines[1:],
        lambda lines: b"01" + lines[1:],
        lambda lines: lines[2:],
        lambda lines: b"\xff" + lines,
        lambda lines: b"1 \xe2\x80\x94 a QUFBQUE=\n",
        lambda lines: lines[:-10] + b"\n",
        lambda lines: lines[:-4] + b"!!!\n",
    ],
)
def test_lines_of_ml_dsa_that_are_none(change):
    rest, lines = ml_dsa()
    with pytest.raises(FormatError):
        whole_note(rest, change(lines))


def test_a_note_of_nothing_but_ml_dsa_lines():
    _, lines = ml_dsa()
    text = note("a\nb\n", "log").split("\n\n")[0] + "\n\n"
    with pytest.raises(FormatError, match="not of ML-DSA-44"):
        split_note(text.encode() + lines[2:])


# -- hashes, entries -------------------------------------------------------------------------------


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=5))
def test_hashes(hashes):
    assert parse_hashes(encode_hashes(hashes), "x") == tuple(hashes)


@pytest.mark.parametrize(
    "data", [b"\n", b"AA==\n", b"A" * 44, b"\xff\n", b"A" * 43 + b"=", b" \n", b"A\r\n"]
)
def test_hashes_that_are_none(data):
    with pytest.raises(FormatError):
        parse_hashes(data, "x")


@given(st.integers(1, 70), st.data())
def test_all_entries_are_proven_at_once(size, data):
    log = [b"entry %d" % index for index in range(size)]
    leaves = [leaf(entry) for entry in log]
    wanted = data.draw(st.sets(st.integers(0, size - 1), min_size=1))
    entries = {index: log[index] for index in wanted}
    hashes = [tree.root(leaves[lo:hi]) for lo, hi in parts_without(size, wanted)]
    assert hashes == apart(leaves, wanted)
    assert inclusion_root(size, entries, hashes) == tree.root(leaves)
    for wrong in (hashes[1:], [*hashes, bytes(32)]):
        if len(wrong) != len(hashes):
            with pytest.raises(FormatError, match="it needs"):
                inclusion_root(size, entries, wrong)
    index = data.draw(st.sampled_from(sorted(wanted)))
    assert inclusion_root(size, entries | {index: b"else"}, hashes) != tree.root(leaves)


@pytest.mark.parametrize("wanted", [[], [-1], [5], [1, 5]])
def test_entries_that_the_log_does_not_have(wanted):
    with pytest.raises(FormatError):
        parts_without(5, wanted)


def test_a_large_log_takes_no_longer():
    size = 2**63 - 1
    assert len(parts_without(size, [0, 2**62, size - 1])) < 190


# -- fragments, frames, keys -----------------------------------------------------------------------


@given(
    st.lists(
        st.builds(
            FragmentPath,
            st.integers(0, 2**63 - 1),
            st.integers(0, 2**32 - 1),
            st.lists(st.binary(min_size=32, max_size=32), max_size=3).map(tuple),
        ),
        max_size=3,
    )
)
def test_paths(paths):
    data = "".join(path.line() for path in paths).encode()
    assert parse_paths(data) == tuple(paths)


@pytest.mark.parametrize(
    "line", [b"6", b"6 ", b"6  1", b"06 1", b"6 1 AA==", b"6 -1", b"6 1 ", b"9223372036854775808 1"]
)
def test_paths_that_are_none(line):
    with pytest.raises(FormatError):
        parse_paths(line + b"\n")


def test_records():
    assert record_lines(b"a\nb\n") == [b"a", b"b"]
    with pytest.raises(FormatError):
        record_lines(b"a")


def test_frames():
    frames = built().frames
    data = b"".join(encode_frame(header, payload) for header, payload in frames)
    assert data == FILES["frames/0.bin"]
    reader = FrameReader(memoryview(data))
    for seq, (header, payload) in enumerate(frames):
        assert reader.next_seq == seq
        frame = reader.read()
        assert (frame.raw, bytes(frame.payload)) == (header, payload)
        fields = parse_header(header)
        assert frame[1:10] == tuple(getattr(fields, name) for name in fields.__slots__)
    assert reader.next_seq is None
    with pytest.raises(FormatError, match="inside a frame"):
        reader.read()


def test_a_withheld_frame():
    header, _ = built().frames[2]
    reader = FrameReader(memoryview(encode_frame(header, None)))
    frame = reader.read()
    assert (frame.payload, frame.seq) == (None, 2)
    assert reader.next_seq is None


def test_frames_cut_anywhere():
    header, payload = built().frames[2]
    data = encode_frame(header, payload)
    for end in range(len(data)):
        with pytest.raises(FormatError):
            FrameReader(memoryview(data)[:end]).read()
    with pytest.raises(FormatError, match="bytes, not"):
        FrameReader(memoryview(encode_frame(header, payload + b"x"))).read()


@pytest.mark.parametrize(("at", "value"), [(0, b"SEALFRM2"), (28, b"\x80"), (48, b"\xff")])
def test_headers_that_are_none(at, value):
    header, payload = built().frames[2]
    header = header[:at] + value + header[at + len(value) :]
    with pytest.raises(FormatError, match=r"frame header|must be"):
        FrameReader(memoryview(encode_frame(header, payload))).read()


@given(st.dictionaries(st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32), min_size=1))
def test_keys(keys):
    data = b"".join(encode_key(seq, keys[seq]) for seq in sorted(keys))
    assert dict(parse_keys(data)) == keys


@pytest.mark.parametrize(
    "data",
    [b"", b"{}\n", b"\n", encode_key(1, bytes(32))[:-1], encode_key(1, bytes(31)),
     encode_key(1, bytes(32)) * 2, encode_key(1, bytes(32)).replace(b"}", b',"x":1}')],
)  # fmt: skip
def test_keys_that_are_none(data):
    with pytest.raises(FormatError):
        list(parse_keys(data))


def test_names():
    assert bundle.timestamp_name(7, "one", "tsr") == "timestamps/7/one.tsr"
    assert bundle.fragments_name(1, "paths") == "fragments/1.paths"
    assert bundle.keys_name(2) == "keys/2.jsonl"
    assert bundle.frames_name(2) == "frames/2.bin"
    assert bundle.checkpoint_name(3) == "checkpoints/3"
