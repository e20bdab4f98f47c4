"""Archives of people who mean harm, and of people who have put things elsewhere."""

import gzip
import io
import os
import tarfile
import zipfile

import pytest

from kit.handin.check import check_files
from kit.handin.opening import Refused, opened
from kit.handin.texts import JSON, text_of


def tar(path, *members):
    """A tar whose headers may say of their sizes what they like."""
    with open(path, "wb") as file:
        for name, size in members:
            item = tarfile.TarInfo(name)
            item.size = size
            file.write(item.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(1024))
    return path


def test_a_size_below_nothing_is_refused_and_does_not_go_round_for_ever(tmp_path):
    with pytest.raises(Refused, match="size below 0"):
        opened(tar(tmp_path / "a.tar", ("models.py", 0), ("x", -512)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_of_very_many_names_is_not_even_listed(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(20_000):
            archive.writestr(f"{number:0120d}", "")
    monkeypatch.setattr(zipfile.ZipFile, "__init__", None)  # it would fail
    with pytest.raises(Refused, match="more than 2000 files"):
        opened(tmp_path / "a.zip", tmp_path / "out")


def test_a_packed_tar_is_not_listed_with_more_in_it_than_may_be(tmp_path, monkeypatch):
    with gzip.open(tmp_path / "a.tar.gz", "wb", 1) as file:
        file.write(tarfile.TarInfo("x").tobuf())
        for _ in range(201):
            file.write(bytes(2**20))
    monkeypatch.setattr("kit.handin.opening.members", None)  # it would fail
    with pytest.raises(Refused, match="more than 2000 files"):
        opened(tmp_path / "a.tar.gz", tmp_path / "out")


def test_a_tar_with_too_much_in_it_is_refused_whole(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number in range(3):
            item = tarfile.TarInfo(f"__MACOSX/{number}")
            item.size = 70 * 2**20
            archive.addfile(item, io.BytesIO(bytes(item.size)))
        archive.addfile(tarfile.TarInfo("models.py"), io.BytesIO())
    with pytest.raises(Refused, match="more than 2000 files or 100 MB"):
        opened(tmp_path / "a.tar", tmp_path / "out")


@pytest.mark.parametrize("coding, told", [("GBK", False), ("UTF8", False), ("us-ascii", False), ("CP936", False),
                                          ("Unicode_Escape", True), ("utf-7", True), ("cp037", True)])
def test_encodings_in_which_people_write_are_no_secret_ones(tmp_path, coding, told):
    (tmp_path / "models.py").write_bytes(f"# -*- coding: {coding} -*-\n".encode())
    assert told == any("is read by Python as" in one.text for one in check_files(tmp_path))


def test_an_archive_beside_a_note_is_opened(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("work/models.py", "x = 1")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("work.zip", inner.getvalue())
        archive.writestr("readme.txt", "It is in work.zip.")
    root, _ = opened(tmp_path / "a.zip", tmp_path / "out")
    assert (root / "models.py").read_text(encoding="utf-8") == "x = 1"


@pytest.mark.parametrize("text, told", [("x = 2", True), ("x = 1", False)])
def test_of_two_whole_copies_it_is_told_which_is_looked_at(tmp_path, text, told):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("backup/models.py", "x = 1")
        archive.writestr("final/models.py", text)
    _, notes = opened(tmp_path / "a.zip", tmp_path / "out")
    assert told == any("backup/models.py was looked at, and not final/models.py" in one.text for one in notes)


def test_json_that_would_fill_the_memory_is_not_read(tmp_path):
    (tmp_path / "a.json").write_text("[" + "[]," * JSON + "0]", encoding="utf-8")
    with pytest.raises(ValueError, match="a.json: has more than 2 MB"):
        text_of(tmp_path / "a.json", JSON)


@pytest.mark.skipif(os.name != "posix", reason="making links needs a right there")
def test_links_in_a_tar_are_left_out(tmp_path):
    """`tar` takes them along as they are: data -> /datasets."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "models.py").write_text("x = 1", encoding="utf-8")
    (tmp_path / "in" / "data").symlink_to("/etc")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "in", "work")
    root, _ = opened(tmp_path / "a.tar.gz", tmp_path / "out")
    assert [path.name for path in root.iterdir()] == ["models.py"]
