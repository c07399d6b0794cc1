import io
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.command import UserError
from stages.readers import reading_zip

LARGEST = 2**20
PATHS = st.text(st.characters(exclude_characters="/\\:\0", exclude_categories=["Cs"]), min_size=1)
MEMBERS = st.dictionaries(
    PATHS.filter(lambda path: path != ".."),
    st.tuples(st.binary(max_size=200), st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])),
)


class Unseekable(io.RawIOBase):
    """A stream, so that a member's size is told behind it and not in its header."""

    def __init__(self):
        self.content = b""

    def writable(self):
        return True

    def write(self, data):
        self.content += bytes(data)
        return len(data)


def read(path):
    with reading_zip(path) as archive:
        return {name: archive.content(name, largest=LARGEST) for name in archive.members}


def zipped(members, file, comment=b""):
    with zipfile.ZipFile(file, "w") as archive:
        for name, (content, method) in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
        archive.comment = comment


@given(members=MEMBERS, comment=st.binary(max_size=100), streamed=st.booleans())
def test_members_are_those_that_zipfile_wrote(tmp_path_factory, members, comment, streamed):
    file = Unseekable() if streamed else io.BytesIO()
    zipped(members, file, comment)
    path = tmp_path_factory.mktemp("zip") / "archive.zip"
    path.write_bytes(file.content if streamed else file.getvalue())
    assert read(path) == {name: content for name, (content, _) in members.items()}


@pytest.fixture(scope="module")
def many():
    """Return an archive of more members than the end of a small one can count."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(2**16):
            archive.writestr(zipfile.ZipInfo(f"{number}"), b"%d" % number)
    return file.getvalue()


def test_an_archive_may_have_more_than_65535_members(tmp_path, many):
    (tmp_path / "archive.zip").write_bytes(many)
    found = read(tmp_path / "archive.zip")
    assert len(found) == 2**16
    assert all(content == name.encode() for name, content in found.items())


@pytest.mark.parametrize(
    ("what", "place", "value"),
    [
        (b"PK\6\6", 0, b"PK\6\5"),  # the larger twin of the end
        (b"PK\6\6", 32, struct.pack("<Q", 2**16 + 1)),  # of members
        (b"PK\6\6", 40, struct.pack("<Q", 2**64 - 1)),  # bytes of the directory
        (b"PK\6\6", 48, struct.pack("<Q", 2**64 - 1)),  # its place
        (b"PK\6\7", 8, struct.pack("<Q", 2**40)),  # the twin's place
        (b"PK\6\7", 8, struct.pack("<Q", 2**64 - 1)),
    ],
)
def test_the_end_of_a_large_archive_that_is_damaged_is_refused(tmp_path, many, what, place, value):
    path = tmp_path / "archive.zip"
    place += many.rindex(what)
    path.write_bytes(many[:place] + value + many[place + len(value) :])
    with pytest.raises(UserError, match=rf"{path}: damaged archive \(.+\); download it again"):
        read(path)


def test_two_members_of_one_path_are_refused(tmp_path):
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"one")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a", b"another")
    with pytest.raises(UserError, match=r"1 different members, expected 2\); download it again"):
        read(path)


def test_a_member_that_unpacks_to_more_than_it_says_is_not_unpacked_further(tmp_path):
    path = tmp_path / "archive.zip"
    zipped({"zeros": (bytes(10**8), zipfile.ZIP_DEFLATED)}, path)
    content = path.read_bytes()
    place = content.rindex(b"PK\1\2") + 24  # its size
    path.write_bytes(content[:place] + struct.pack("<I", 5) + content[place + 4 :])
    with pytest.raises(UserError, match=r"damaged archive \(zeros does not unpack to its size\)"):
        read(path)


def test_names_that_are_not_utf8_are_of_code_page_437(tmp_path):
    """As archives are that were packed on Windows, without the flag of UTF-8."""
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Vxgel/a.png", b"content")
    path.write_bytes(path.read_bytes().replace(b"Vxgel", b"V\x94gel"))
    assert read(path) == {"Vögel/a.png": b"content"}
