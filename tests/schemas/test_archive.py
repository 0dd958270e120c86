"""The ZIP file: read by Python's own reader, and by ours only when every byte is in its place."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import archive
from sealtape.schemas.archive import Member, central_header, ending, local_header, pack, unpack
from sealtape.schemas.errors import FormatError
from tests.vectors.bundle_parts import zipped

FILES = {"b/two": b"second", "a": b"", "README.txt": b"read me\n"}
NAMES = st.text("abcXYZ0123456789./-", min_size=1, max_size=12)


def plain(files):
    return {name: bytes(content) for name, content in files.items()}


def test_others_read_it():
    with zipfile.ZipFile(io.BytesIO(pack(FILES))) as reader:
        assert reader.testzip() is None
        assert {name: reader.read(name) for name in reader.namelist()} == FILES
        infos = reader.infolist()
    assert [info.filename for info in infos] == sorted(FILES)
    assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}


def test_it_is_what_the_page_says():
    assert pack(FILES) == zipped(FILES)
    assert pack({}) == zipped({})


@given(st.dictionaries(NAMES, st.binary(max_size=40), max_size=6))
def test_round_trip(files):
    found = unpack(pack(files))
    assert plain(found) == files
    assert list(found) == sorted(files)


def test_every_truncation_and_every_bit():
    data = pack(FILES)
    for end in range(len(data)):
        with pytest.raises(FormatError):
            unpack(data[:end])
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            unpack(bytes(changed))


@pytest.mark.parametrize("more", [b"\0", b"PK\5\6", pack({})])
def test_nothing_stands_before_or_behind(more):
    data = pack(FILES)
    for wrong in (data + more, more + data):
        with pytest.raises(FormatError):
            unpack(wrong)


@pytest.mark.parametrize("second", ["a", "A"])
def test_a_name_twice_or_out_of_order(second):
    one = Member("a", 0, 0, 0)
    two = Member(second, 0, 0, len(local_header(one)))
    body = local_header(one) + local_header(two)
    with pytest.raises(FormatError, match="out of order"):
        unpack(body + ending([one, two], len(body)))


@pytest.mark.parametrize("options", [{"compresslevel": 6, "compression": 8}, {}])
def test_what_other_writers_write_is_refused(options):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as writer:
        writer.writestr("a", b"content")
    with pytest.raises(FormatError):
        unpack(buffer.getvalue())


def test_names_are_ascii():
    data = bytearray(pack({"abc": b""}))
    data[30] = 0xE9
    with pytest.raises(FormatError, match="ASCII"):
        unpack(bytes(data))


def test_the_file_that_is_wrong_is_named():
    data = bytearray(pack({"abc": b"content"}))
    data[33] ^= 1
    with pytest.raises(FormatError) as caught:
        unpack(bytes(data))
    assert caught.value.context == {"file": "abc"}


LARGE = 0xFFFF_FFFF


@pytest.mark.parametrize("size", [LARGE - 1, LARGE, LARGE + 7])
@pytest.mark.parametrize("offset", [0, LARGE - 1, LARGE, LARGE + 9])
def test_large_files_as_python_reads_them(size, offset):
    """Headers of files that are not there: the table's reader looks at nothing else."""
    member = Member("frames/0.bin", size, 7, offset)
    end = offset + len(local_header(member)) + size
    table = central_header(member)
    with zipfile.ZipFile(Sparse(ending([member], end), end)) as reader:
        (info,) = reader.infolist()
    assert (info.file_size, info.header_offset, info.CRC) == (size, offset, 7)
    assert table in ending([member], end)


class Sparse(io.RawIOBase):
    """A file that is zeros up to its end."""

    def __init__(self, tail, begin):
        super().__init__()
        self.tail, self.begin, self.at = tail, begin, 0

    def seekable(self):
        return True

    def readable(self):
        return True

    def seek(self, offset, whence=0):
        size = self.begin + len(self.tail)
        self.at = {0: 0, 1: self.at, 2: size}[whence] + offset
        return self.at

    def tell(self):
        return self.at

    def read(self, size=-1):
        at = self.at - self.begin
        assert at >= 0
        found = self.tail[at:] if size < 0 else self.tail[at : at + size]
        self.at += len(found)
        return found


def test_a_large_file_is_found_by_its_64_bit_size():
    """The local header alone says so: what is claimed is not there."""
    header = local_header(Member("big", LARGE + 1, 0, 0))
    assert len(header) == 30 + 3 + 20
    with pytest.raises(FormatError, match="cut off in big"):
        unpack(header + b"content")


def test_not_more_files_than_can_be_counted():
    members = [Member("a", 0, 0, 0)] * (archive.MAX_FILES + 1)
    with pytest.raises(FormatError, match="at most"):
        ending(members, 0)
    ending(members[1:], 0)


def test_not_more_files_than_can_be_read(monkeypatch):
    data = pack({str(number): b"" for number in range(4)})
    monkeypatch.setattr(archive, "MAX_FILES", 3)
    with pytest.raises(FormatError, match="at most 3"):
        unpack(data)
