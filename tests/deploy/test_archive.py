"""Archives from strangers: each trick is refused before a byte is written outside."""

from __future__ import annotations

import random
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from yolo_kd.deploy import archive

from yolo_kd.errors import GateError, MisuseError


def make(path: Path, *entries: tuple[str, bytes], mode: int = 0o100644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, raw in entries:
            info = zipfile.ZipInfo(name)
            info.filename = info.orig_filename = name
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(info, raw)
    return path


def test_a_folder_comes_back_as_it_was_and_equal_folders_pack_equally(tmp_path):
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a.bin").write_bytes(random.Random(0).randbytes(2_300_000))
    (source / "sub" / "b.txt").write_text("text")
    archive.pack(source, tmp_path / "one.zip")
    (source / "a.bin").touch()
    archive.pack(source, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with archive.opened(tmp_path / "one.zip") as opened:
        assert archive.names(opened) == ["a.bin", "sub/b.txt"]
        archive.unpack(opened, tmp_path / "out")
        with pytest.raises(MisuseError, match="exists already"):
            archive.unpack(opened, tmp_path / "out")
    assert (tmp_path / "out" / "a.bin").read_bytes() == (source / "a.bin").read_bytes()
    assert (tmp_path / "out" / "sub" / "b.txt").read_text() == "text"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.zip", "out", "source", "two.zip"]


@pytest.mark.parametrize(
    "name",
    [
        "../out.txt",
        "a/../../out.txt",
        "/abs.txt",
        "..",
        "C:/x",
        "a\\..\\b",
        "a\nb",
        "x?",
        "con\x00.txt",
        "./a",
        "a//b",
        "a/./b",
    ],
)
def test_paths_that_escape_are_refused(tmp_path, name):
    path = make(tmp_path / "x.zip", ("fine.txt", b"1"), (name, b"2"))
    with pytest.raises(GateError, match="leads out of the folder"), archive.opened(path):
        pass
    assert [p.name for p in tmp_path.rglob("*")] == ["x.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_refused(tmp_path, kind):
    path = make(tmp_path / "x.zip", ("link", b"/etc/passwd"), mode=kind | 0o777)
    with pytest.raises(GateError, match="is a link or a device"), archive.opened(path):
        pass


def test_bombs_are_refused(tmp_path):
    path = make(tmp_path / "x.zip", ("zeros.bin", bytes(8 << 20)))
    with pytest.raises(GateError, match=r"swells from \d+ to 8388608 bytes"), archive.opened(path):
        pass
    with (
        pytest.raises(GateError, match="unpacks to 8388608 bytes"),
        archive.opened(path, archive.Bounds(bytes=1 << 20)),
    ):
        pass
    many = make(tmp_path / "y.zip", *((f"{i}.txt", b"") for i in range(30)))
    with pytest.raises(GateError, match="holds 30 entries"), archive.opened(many, archive.Bounds(entries=20)):
        pass


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["a.txt", "A.TXT", "a.txt/", "a.txt/b"])
def test_two_entries_of_one_name_are_refused(tmp_path, second):
    path = make(tmp_path / "x.zip", ("a.txt", b"1"), (second, b""))
    with pytest.raises(GateError, match="occurs twice"), archive.opened(path):
        pass


def test_a_header_that_lies_about_the_size(tmp_path):
    """The list says 4 bytes, the data are 3,000,000: what is read stops at the declared size or at the checksum."""
    path = make(tmp_path / "x.zip", ("a.txt", b"abcd" * 750_000))
    raw = bytearray(path.read_bytes())
    directory = raw.rindex(b"PK\x01\x02")
    for start, offset in ((0, 22), (directory, 24)):
        struct.pack_into("<I", raw, start + offset, 4)
    path.write_bytes(raw)
    with (
        archive.opened(path, archive.Bounds(ratio=10**9)) as opened,
        pytest.raises(GateError, match="a.txt is damaged"),
    ):
        archive.unpack(opened, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.zip"]


def test_only_plain_methods_are_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as out:
        out.writestr("a.txt", b"1" * 100)
    with pytest.raises(GateError, match="is packed by method 14"), archive.opened(tmp_path / "x.zip"):
        pass


def test_a_folder_of_that_name_is_nothing_to_it(tmp_path):
    """A link that lies in wait under the temporary name of old is neither followed nor removed."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out.part").symlink_to(tmp_path / "elsewhere")
    with archive.opened(make(tmp_path / "x.zip", ("a.txt", b"1"))) as opened:
        archive.unpack(opened, tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir()) and (tmp_path / "out" / "a.txt").is_file()


def test_damage_is_named(tmp_path):
    raw = make(tmp_path / "x.zip", ("a.txt", bytes(range(256)) * 40)).read_bytes()
    for cut in (0, 10, len(raw) // 2, len(raw) - 5):
        (tmp_path / "cut.zip").write_bytes(raw[:cut])
        with pytest.raises(GateError, match="no readable zip"), archive.opened(tmp_path / "cut.zip"):
            pass
    turned = bytearray(raw)
    turned[60] ^= 0xFF
    (tmp_path / "turned.zip").write_bytes(turned)
    with archive.opened(tmp_path / "turned.zip") as opened, pytest.raises(GateError, match="a.txt is damaged"):
        archive.sha256_of(opened, "a.txt")
    with pytest.raises(MisuseError, match="no such file"), archive.opened(tmp_path / "none.zip"):
        pass


def test_reading_one_file_is_bounded(tmp_path):
    path = make(tmp_path / "x.zip", ("a.txt", b"12345"))
    with archive.opened(path) as opened:
        assert archive.read(opened, "a.txt", 5) == b"12345"
        with pytest.raises(GateError, match="has 5 bytes, at most 4"):
            archive.read(opened, "a.txt", 4)
        with pytest.raises(GateError, match="b.txt is missing"):
            archive.read(opened, "b.txt", 4)
