"""Who has handed in what: names as learning platforms and students write them, and the class list."""

import csv
import errno
import json
import os
import re
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import pytest
from students import zipped

from kit import files
from kit.handin import check as handin_check
from kit.handin import opening
from kit.handin.findings import Finding, NotTried
from kit.handin.opening import Refused, opened
from kit.handin.texts import text_of
from kit.language import language
from teacher import __main__ as teacher
from teacher import classes
from teacher.roster import is_called, match, read_own, read_roster
from teacher.submissions import submissions


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(b"x")
    return folder


@pytest.mark.parametrize("name, student_id, person, platform_id, late", [
    ("Zhang Wei_123456_assignsubmission_file_/", "", "Zhang Wei", "123456", False),
    ("李娜_123457_assignsubmission_file_hw.zip", "", "李娜", "123457", False),
    ("O'Brien Pat_777_assignsubmission_file_/", "", "O'Brien Pat", "777", False),
    ("wangfang_LATE_5512_99101_hw.zip", "", "wangfang", "5512", True),
    ("wangfang_5512_99101_2021010101.zip", "", "wangfang", "5512", False),
    ("2021012345_张三_hw3.zip", "2021012345", "张三", "", False),
    ("2021012346 李四.zip", "2021012346", "李四", "", False),
    ("王五-2021012347.zip", "2021012347", "王五", "", False),
    ("2021012348.tar.gz", "2021012348", "", "", False),
    ("2021012349+赵六+超分辨率.rar", "2021012349", "赵六", "", False),
    ("ann.zip", "", "ann", "", False), ("student_1.zip", "", "student_1", "", False),
])
def test_names_of_platforms_and_students(tmp_path, name, student_id, person, platform_id, late):
    (one,), left_out = submissions(put(tmp_path, name))
    assert (one.student_id, one.name, one.platform_id, one.late) == (student_id, person, platform_id, late)
    assert one.path.name == name.rstrip("/") and not left_out


def test_each_student_counts_once_with_the_newest_attempt(tmp_path):
    put(tmp_path, "wangfang_LATE_5512_99101_hw.zip", "wangfang_5512_99102_hw-1.zip", "2021012345_张三_hw.zip",
        "2021012345_张三_hw_v2.zip", "liu_5513_9_models.py", "liu_5513_9_train.ipynb", "student_1.zip", "student_2.zip",
        "grades.csv", "ann/", "ann.zip", ".DS_Store", "__MACOSX/", "x_1_assignsubmission_onlinetext_/")
    os.utime(tmp_path / "ann", (0, 0))  # and of one name without a number the one that was changed last
    found, left_out = submissions(tmp_path)
    assert {one.name: [path.name for path in one.path] if isinstance(one.path, list) else one.path.name
            for one in found} == {
        "wangfang": "wangfang_5512_99102_hw-1.zip", "张三": "2021012345_张三_hw_v2.zip",
        "liu": ["liu_5513_9_models.py", "liu_5513_9_train.ipynb"],
        "student_1": "student_1.zip", "student_2": "student_2.zip", "ann": "ann.zip"}
    assert sorted(path.name for one in found for path in one.older) == [
        "2021012345_张三_hw.zip", "ann", "wangfang_LATE_5512_99101_hw.zip"]
    assert left_out == ["grades.csv"]


def test_another_pattern_for_names(tmp_path):
    put(tmp_path, "hw3-zhang.san-A12.zip")
    (one,), _ = submissions(tmp_path, r"hw3-(?P<name>[\w.]+)-(?P<student_id>\w+)")
    assert (one.name, one.student_id) == ("zhang.san", "A12")
    with pytest.raises(ValueError, match="is no regular expression"):
        submissions(tmp_path, "(")


@pytest.mark.parametrize("text, encoding", [
    ("学号,姓名\n2021012345,张三\n2021012346,李四\n", "utf-8-sig"),
    ("学号,姓名\n2021012345,张三\n2021012346,李四\n", "gbk"),
    ("Identifier;ID number;Full name\nParticipant 1;2021012345;张三\nParticipant 2;2021012346;李四\n", "utf-8"),
    ("First name\tLast name\tID number\n三\t张\t2021012345\n四\t李\t2021012346\n", "utf-8"),
])
def test_rosters_as_platforms_export_them(tmp_path, text, encoding):
    (tmp_path / "roster.csv").write_bytes(text.encode(encoding))
    found, _ = submissions(put(tmp_path / "in", "2021012345_张三_hw.zip", "nobody.zip"))
    pairs, others = match(read_roster(tmp_path / "roster.csv"), [one._asdict() for one in found])
    assert [(person["student_id"], one and one["name"]) for person, one in pairs] == [
        ("2021012345", "张三"), ("2021012346", None)]
    assert [one["name"] for one in others] == ["nobody"]


def test_a_roster_without_numbers_goes_by_names_and_one_without_both_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("Student,ID\n\"Wang, Fang\",5512\nLi Wei,5514\n", encoding="utf-8")
    found, _ = submissions(put(tmp_path / "in", "wangfang_5512_9_hw.zip", "liwei.zip"))
    assert all(one for _, one in match(read_roster(tmp_path / "a.csv"), [one._asdict() for one in found])[0])
    (tmp_path / "same.csv").write_text("姓名,学号\n张伟,\n张伟,2021012345\n李娜,\n", encoding="utf-8")
    found, _ = submissions(put(tmp_path / "in2", "张伟_1_assignsubmission_file_/", "李娜_2_assignsubmission_file_/"))
    # Two of one name: nobody can tell whose it is.
    pairs, others = match(read_roster(tmp_path / "same.csv"), [one._asdict() for one in found])
    assert [one and one["name"] for _, one in pairs] == [None, None, "李娜"]
    assert [one["name"] for one in others] == ["张伟"]
    (tmp_path / "b.csv").write_text("mark\n5\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no column for numbers or names"):
        read_roster(tmp_path / "b.csv")


# ----------------------------------------------------------------------------------------------- what is in them


FILES = {"models.py": "m", "solver.py": "s", "train.ipynb": "t", "test.ipynb": "e", "super_resolution.ipynb": "g",
         "report.md": "r", "results/handin/result.json": "{}", "results/handin/Set5/baby.png": "p",
         "results/cells.jsonl": "c"}


def handed_in(folder, files=FILES):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def everything(root):
    return all((root / name).is_file() for name in FILES)


def test_a_zip_in_a_folder_in_a_zip_is_opened(tmp_path):
    inner = zipped(handed_in(tmp_path / "a"), tmp_path / "hw.zip", "ann/")
    (tmp_path / "moodle").mkdir()
    inner.rename(tmp_path / "moodle" / "hw.zip")
    root, notes = opened(tmp_path / "moodle", tmp_path / "out")
    assert everything(root) and not notes
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "moodle" / "hw.zip", "张三/hw.zip")
        archive.writestr("__MACOSX/._hw.zip", "x")
    root, notes = opened(tmp_path / "outer.zip", tmp_path / "out2")
    assert everything(root) and not notes and sorted(path.name for path in tmp_path.iterdir()) == [
        "a", "moodle", "out", "out2", "outer.zip"]


def test_several_files_are_taken_as_they_are(tmp_path):
    handed_in(tmp_path / "a", {"models.py": "m", "report.md": "r"})
    zipped(tmp_path / "a", tmp_path / "a" / "report.docx")
    root, _ = opened(sorted((tmp_path / "a").iterdir()), tmp_path / "out")
    assert sorted(path.name for path in root.iterdir()) == ["models.py", "report.docx", "report.md"]


def test_tars_are_opened_and_others_named(tmp_path):
    handed_in(tmp_path / "a")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "a", "ann")
    assert everything(opened(tmp_path / "a.tar.gz", tmp_path / "out")[0])
    (tmp_path / "a.7z").write_bytes(b"7z")
    with pytest.raises(Refused, match="of 7-Zip, which cannot be opened here; unpack it"):
        opened(tmp_path / "a.7z", tmp_path / "out2")


@pytest.mark.parametrize("encoding, folder", [("gbk", "代码实现"), ("big5", "功課許蓋"), ("utf-8", "作业")])
def test_names_in_chinese_without_the_mark_for_utf_8(tmp_path, encoding, folder):
    path = zipped(handed_in(tmp_path / "a"), tmp_path / "a.zip", f"{folder}/", encoding=encoding)
    with zipfile.ZipFile(path) as archive:
        assert not any(item.flag_bits & 0x800 for item in archive.infolist())
    root, notes = opened(path, tmp_path / "out")
    assert everything(root) and not notes and root.name == folder


def test_powershell_writes_backslashes(tmp_path):
    path = zipped(handed_in(tmp_path / "a"), tmp_path / "a.zip", "ann/", separator="\\")
    assert everything(opened(path, tmp_path / "out")[0])
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("..\\..\\slipped.txt", "x")
    with pytest.raises(Refused, match="leads out of the folder"):
        opened(tmp_path / "b.zip", tmp_path / "out2")


def test_junk_and_a_copy_of_the_kit_deeper_down_are_not_what_was_handed_in(tmp_path):
    handed_in(tmp_path / "a" / "hw")
    put(tmp_path / "a", "__MACOSX/hw/._models.py", "hw/.DS_Store", "hw/.ipynb_checkpoints/train-checkpoint.ipynb",
        "hw/old/models.py", "hw/kit/models.py")
    root, notes = opened(tmp_path / "a", tmp_path / "out")
    assert root.name == "hw" and everything(root) and not notes
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith((".", "_"))]


def test_files_in_folders_and_under_names_of_ones_own_are_found_and_told(tmp_path):
    files = {"代码/models.py": "m", "代码/solver.py": "s", "代码/mysr/net.py": "n", "train (1).ipynb": "t",
             "test_final.ipynb": "e", "super_resolution - 副本.ipynb": "g", "report.md": "r", "结果/result.json": "{}",
             "结果/Set5/baby.png": "p", "results/cells.jsonl": "c"}
    root, notes = opened(handed_in(tmp_path / "a", files), tmp_path / "out")
    assert everything(root) and (root / "mysr" / "net.py").is_file()
    said = "\n".join(one.text for one in notes)
    assert "train.ipynb was found as train (1).ipynb" in said and "models.py was found as 代码/models.py" in said
    assert "results/handin was found as 结果" in said and {one.verdict for one in notes} == {"note"}


def test_texts_are_read_whatever_windows_made_of_them(tmp_path):
    for number, data in enumerate(["\ufeff报告".encode(), "报告".encode("gbk"), "报告".encode(),
                                   "报告".encode("utf-16")]):
        (tmp_path / f"{number}.md").write_bytes(data)
        assert text_of(tmp_path / f"{number}.md") == "报告"
    (tmp_path / "none").write_bytes(b"\xff\xff\xff")
    with pytest.raises(ValueError, match="neither in UTF-8 nor in GBK"):
        text_of(tmp_path / "none")


# --------------------------------------------------------------------------------------------- the class's table


@pytest.fixture
def unlooked(monkeypatch):
    """Hand-ins are taken as they are; gives the paths that were looked at."""
    looked = []

    def check(path, **options):
        looked.append(path)
        Path(options["scratch"]).mkdir(parents=True)
        return [Finding("files", "ok", "fine")], {}

    monkeypatch.setattr(classes, "check", check)
    monkeypatch.setattr("kit.handin.sandbox.require", lambda: None)
    return looked


def class_download(tmp_path, *names, to="class.zip"):
    for name in names:
        zipped(handed_in(tmp_path / "files"), tmp_path / "in" / f"{name}_assignsubmission_file_.zip")
    with zipfile.ZipFile(tmp_path / to, "w") as archive:
        for path in sorted((tmp_path / "in").iterdir()):
            archive.write(path, f"{path.stem}/hw.zip")
    return tmp_path / to


def test_a_new_download_is_looked_at_where_it_is_new(tmp_path, unlooked):
    (tmp_path / "in").mkdir()
    first = class_download(tmp_path, "ann_1", "bob_2")
    assert len(classes.check_all(first, tmp_path / "out", progress=False)) == 2
    unlooked.clear()
    second = class_download(tmp_path, "cem_3", to="again.zip")
    assert len(classes.check_all(second, tmp_path / "out", progress=False)) == 3
    assert ["cem_3" in str(path) for path in unlooked] == [True]


def test_names_that_the_file_system_cannot_write(tmp_path, unlooked, monkeypatch):
    """Linux under GBK knows no Korean, and Windows refuses some of ASCII's letters."""
    download = tmp_path / "class.zip"
    with zipfile.ZipFile(download, "w") as archive:
        for number, name in enumerate(["김철수", "이영희", "<b>?张三"]):
            archive.writestr(f"{name}_{number}_assignsubmission_file/report.md", name)
    monkeypatch.setattr(files.sys, "getfilesystemencoding", lambda: "gbk")
    rows = classes.check_all(download, tmp_path / "out", progress=False)
    assert len({row["handin"] for row in rows}) == 3 and "_b__张三" in [row["handin"] for row in rows]
    for row in rows:
        assert re.fullmatch(r"[\w ]+", row["handin"]) and row["handin"].encode("gbk")
        assert (tmp_path / "out" / f"{row['handin']}.json").is_file()
    for path in unlooked:
        assert str(path).encode("gbk") and (path / "report.md").is_file()


def test_who_asks_for_more_gets_it_though_nothing_has_changed(tmp_path, unlooked):
    (tmp_path / "in").mkdir()
    download = class_download(tmp_path, "ann_1")
    for options, looks in [({}, 1), ({"execute": True}, 2), ({"execute": True}, 2), ({}, 2), ({"vgg": "file"}, 3)]:
        classes.check_all(download, tmp_path / "out", progress=False, **options)
        assert len(unlooked) == looks, options


def test_findings_are_in_the_language_that_is_asked_for(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    download = class_download(tmp_path, "ann_1")
    english, chinese = ("en", "it is not a notebook"), ("zh", "不是 notebook 文件")
    for spoken, told in (english, chinese, english):
        with pytest.raises(SystemExit):
            teacher.main(["check", str(download), "--out", str(tmp_path / "out"), "--language", spoken])
        file, = (tmp_path / "out").glob("*.json")
        found = json.loads(file.read_bytes())["findings"]
        assert told in [one["text"] for one in found], found
        assert {one["what"] for one in found} >= {"files"}  # by which feedback knows what to advise
    assert language() == "en"


def test_a_folder_with_the_download_in_it_is_meant_and_another_class_does_not_overwrite(tmp_path, unlooked):
    (tmp_path / "in").mkdir()
    (tmp_path / "downloads").mkdir()
    class_download(tmp_path, "ann_1", "bob_2", to="downloads/SR-17.zip")
    (tmp_path / "downloads" / "Grades.csv").write_text("x", encoding="utf-8")
    rows = classes.check_all(tmp_path / "downloads", tmp_path / "out", progress=False)
    assert [row["name"] for row in rows] == ["ann", "bob"]
    with pytest.raises(ValueError, match="has the results of 2 other hand-ins, such as .*; give another --out"):
        classes.check_all(put(tmp_path / "other", "eve.zip"), tmp_path / "out", progress=False)
    assert sorted(path.name for path in (tmp_path / "out" / "handins").iterdir()) == ["ann", "bob"]


def test_the_class_list_completes_what_names_say_and_namesakes_are_told(tmp_path, unlooked):
    (tmp_path / "in").mkdir()
    download = class_download(tmp_path, "张伟_1", "李娜_2", "张伟_3")
    roster = [{"student_id": number, "name": name, "platform_id": "", "email": ""} for number, name in
              (("2021012301", "张伟"), ("2021012302", "李娜"), ("2021012303", "孙悦"))]
    rows = classes.check_all(download, tmp_path / "out", progress=False, roster=roster)
    assert [(row["student_id"], row["name"], row["complete"]) for row in rows] == [
        ("", "张伟", "yes"), ("", "张伟", "yes"), ("2021012302", "李娜", "yes"),
        ("2021012301", "张伟", "unclear"), ("2021012303", "孙悦", "missing")]
    for person, number in zip(roster, ("1", "2", "9")):  # with the platform's numbers there is no doubt
        person["platform_id"] = number
    rows = classes.check_all(download, tmp_path / "out", progress=False, roster=roster)
    assert [(row["student_id"], row["platform_id"]) for row in rows] == [
        ("2021012301", "1"), ("", "3"), ("2021012302", "2"), ("2021012303", "9")]


def test_of_a_download_nothing_is_left_out_in_silence(tmp_path):
    with zipfile.ZipFile(tmp_path / "class.zip", "w") as archive:
        archive.writestr("ann_1_assignsubmission_file_/hw.zip", "x")
        archive.writestr("../bob_2_assignsubmission_file_/hw.zip", "x")
    with pytest.raises(ValueError, match="holds ../bob_2.*leads out of the folder; unpack it by hand"):
        classes.check_all(tmp_path / "class.zip", tmp_path / "out", progress=False)
    assert not list((tmp_path / "out").rglob("hw.zip"))


def test_a_class_from_its_download_to_its_table(tmp_path, monkeypatch):
    from kit.handin import check as handin

    monkeypatch.setattr(handin, "check_code", lambda *arguments: [])
    monkeypatch.setattr(handin, "check_pictures", lambda root, lists: ([], {}))
    monkeypatch.setattr("kit.handin.sandbox.require", lambda: None)
    handed_in(tmp_path / "a")
    for student in ("张三_1_assignsubmission_file_", "=HYPERLINK(1)_2_assignsubmission_file_"):
        (tmp_path / "in" / student).mkdir(parents=True)
        zipped(tmp_path / "a", tmp_path / "in" / student / "hw.zip")
    zipped(tmp_path / "in", tmp_path / "download.zip")
    roster = [{"student_id": "", "name": name, "platform_id": "", "email": ""} for name in ("张三", "李四")]
    rows = classes.check_all(tmp_path / "download.zip", tmp_path / "out", progress=False, roster=roster)
    assert [(row["name"], row["complete"]) for row in rows if row["name"] == "李四"] == [("李四", "missing")]
    data = (tmp_path / "out" / "checks.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf") and b"\n=" not in data and b"'=HYPERLINK(1)" in data
    with open(tmp_path / "out" / "checks.csv", newline="", encoding="utf-8-sig") as file:
        table = list(csv.DictReader(file))
    assert {row["platform_id"] for row in table} == {"1", "2", ""} and len(table) == 3
    assert (tmp_path / "out" / "handins" / "张三" / "models.py").is_file()
    looked = []
    monkeypatch.setattr(classes, "check", lambda *arguments, **options: looked.append(arguments))
    again = classes.check_all(tmp_path / "download.zip", tmp_path / "out", progress=False, roster=roster)
    assert again == rows and not looked  # the same download: nothing is looked at twice
    monkeypatch.undo()
    monkeypatch.setattr(handin, "check_code", lambda *arguments: [])
    monkeypatch.setattr("kit.handin.sandbox.require", lambda: None)
    (tmp_path / "in" / "张三_1_assignsubmission_file_" / "hw.zip").unlink()
    (tmp_path / "in" / "张三_1_assignsubmission_file_").rmdir()
    classes.check_all(tmp_path / "in", tmp_path / "out", progress=False)  # it was taken back: nothing of it stays
    assert [path.name for path in (tmp_path / "out" / "handins").iterdir()] == ["=HYPERLINK(1)"]
    assert not (tmp_path / "out" / "张三.json").exists()
    assert json.loads((tmp_path / "out" / "=HYPERLINK(1).json").read_bytes())["findings"]


@pytest.mark.parametrize("one, other, same", [
    ("Li Wei", "WeiLi", True), ("Wang, Fang", "wangfang", True), ("三 张", "张三", True), ("ＬＩ Wei", "li_wei", True),
    ("李文博", "李博文", False), ("Li Yuan", "Liu Yan", False), ("", "", False), ("Wei", "Weiwei", False)])
def test_names_are_the_same_in_any_order_of_their_words_and_not_of_their_letters(one, other, same):
    assert is_called({"name": one}, {"name": other}) == is_called({"name": other}, {"name": one}) == same


def test_who_has_a_name_keeps_it_when_a_namesake_hands_in(tmp_path, unlooked):
    (tmp_path / "in").mkdir()
    first = classes.check_all(class_download(tmp_path, "张伟_1002"), tmp_path / "out", progress=False)
    rows = classes.check_all(class_download(tmp_path, "张伟_1001", to="b.zip"), tmp_path / "out", progress=False)
    assert [row["handin"] for row in first] == ["张伟"]
    assert {row["platform_id"]: row["handin"] for row in rows} == {"1002": "张伟", "1001": "张伟_1001"}


@pytest.mark.parametrize("called", ["liwei_5512_990{number}_{file}", "Li Wei_5512_assignsubmission_file_{file}",
                                    "2021012345_{file}", "2021012345_李伟_{file}"])
def test_files_that_came_one_by_one_are_called_as_their_student_calls_them(tmp_path, unlooked, called):
    handed_in(tmp_path / "files", {name: "x" for name in [*handin_check.NEEDED, "mynet.py"]})
    (tmp_path / "in").mkdir()
    for number, path in enumerate(sorted((tmp_path / "files").iterdir())):
        path.rename(tmp_path / "in" / called.format(number=number, file=path.name))
    row, = classes.check_all(tmp_path / "in", tmp_path / "out", progress=False)
    root, notes = opened(unlooked[0], tmp_path / "opened")
    assert {path.name for path in root.iterdir()} >= set(handin_check.NEEDED) and not notes
    assert (root / "mynet.py").is_file() or called.startswith("2021012345_{")  # (which could be a name)


def test_a_file_beside_an_archive_is_put_to_it(tmp_path, unlooked):
    zipped(handed_in(tmp_path / "files", {"models.py": "m", "report.md": "old"}), tmp_path / "hw.zip", "hw/")
    (tmp_path / "in").mkdir()
    (tmp_path / "hw.zip").rename(tmp_path / "in" / "liwei_5512_1_hw.zip")
    (tmp_path / "in" / "liwei_5512_2_report.pdf").write_bytes(b"%PDF")
    classes.check_all(tmp_path / "in", tmp_path / "out", progress=False)
    root, _ = opened(unlooked[0], tmp_path / "opened")
    assert sorted(path.name for path in root.iterdir()) == ["models.py", "report.md", "report.pdf"]


def test_older_attempts_are_named(tmp_path, unlooked, capsys):
    put(tmp_path / "in", "2021012345_张三_hw.zip", "2021012345_张三_hw_v2.zip")
    classes.check_all(tmp_path / "in", tmp_path / "out")
    assert "2021012345_张三: the newest is looked at, and not 2021012345_张三_hw.zip" in capsys.readouterr().out


def test_a_number_of_many_people_is_nobodys(tmp_path):
    found, _ = submissions(put(tmp_path, "20261220_LiWei.zip", "20261220_ZhangSan.zip", "20261220_WangFang.zip"))
    assert [(one.name, one.student_id) for one in found] == [("LiWei", ""), ("WangFang", ""), ("ZhangSan", "")]
    for pattern in ("hw7-(.*)", "hw7-(?P<student>.*)"):
        with pytest.raises(ValueError, match="needs one of the groups .*student_id.*name.*platform_id"):
            submissions(tmp_path, pattern)


def test_a_download_of_one_student_is_one_hand_in(tmp_path, unlooked):
    for number, place in enumerate(["Li Wei_1001_assignsubmission_file_", "mine"]):
        handed_in(tmp_path / str(number) / place)
        download = zipped(tmp_path / str(number), tmp_path / f"{number}.zip")
        row, = classes.check_all(download, tmp_path / f"out{number}", progress=False)
        assert row["handin"] in ("Li Wei", "mine")


def test_a_full_disk_is_nobodys_problem_and_stops(tmp_path, unlooked, monkeypatch):
    def check(path, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(classes, "check", check)
    (tmp_path / "in").mkdir()
    with pytest.raises(files.NoRoom, match="out: the disk is full; make room, and the same command goes on"):
        classes.check_all(class_download(tmp_path, "ann_1"), tmp_path / "out", progress=False)
    assert not list((tmp_path / "out").glob("*.json"))
    monkeypatch.setattr(opening, "_bring", lambda *arguments: check(None))
    handed_in(tmp_path / "hw")
    with pytest.raises(OSError, match="No space left"):
        opened(tmp_path / "hw", tmp_path / "copy")


def test_with_another_list_of_the_graded_pictures_all_are_looked_at_again(tmp_path, unlooked):
    (tmp_path / "in").mkdir()
    download = class_download(tmp_path, "ann_1")
    for text, looks in [(None, 1), ("a", 2), ("a", 2), ("b", 3)]:
        if text:
            put(tmp_path / "lists", "Set5.csv").joinpath("Set5.csv").write_text(text, encoding="utf-8")
        classes.check_all(download, tmp_path / "out", lists=tmp_path / "lists", progress=False)
        assert len(unlooked) == looks, text


def test_who_waits_when_a_check_is_stopped_is_not_missing(tmp_path, unlooked, monkeypatch):
    def stop(future):
        raise KeyboardInterrupt

    (tmp_path / "in").mkdir()
    roster = [{"student_id": "", "name": name, "platform_id": number, "email": ""} for name, number in
              (("ann", "1"), ("bob", "2"))]
    download = class_download(tmp_path, "ann_1", "bob_2")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(classes, "as_completed", stop)
        classes.check_all(download, tmp_path / "out", progress=False, roster=roster)
    assert "missing" not in (tmp_path / "out" / "checks.csv").read_text(encoding="utf-8-sig")


def test_lines_of_a_grade_book_that_are_no_students_are_not_missing(tmp_path):
    (tmp_path / "a.csv").write_text('Student,ID,HW\n    Points Possible,,100\n"Wei, Li",5512,\n"Student, Test",9,\n',
                                    encoding="utf-8")
    assert [person["name"] for person in read_roster(tmp_path / "a.csv")] == ["Wei, Li"]
    (tmp_path / "b.csv").write_text("name\n" + "x" * 200_000 + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="b.csv: cannot be read as a table .field larger than field limit"):
        read_roster(tmp_path / "b.csv")


def test_many_model_files_are_a_few_findings(tmp_path):
    handed_in(tmp_path, {f"{number}.npy": "x" for number in range(1600)})
    found = [one.text for one in handin_check.check_files(tmp_path) if "model file" in one.text]
    assert len(found) == 6 and found[-1] == "1595 more files are model files"


def test_what_could_not_be_tried_here_is_looked_at_again(tmp_path, unlooked, monkeypatch):
    looked = []

    def check(path, **options):
        looked.append(path)
        Path(options["scratch"]).mkdir(parents=True, exist_ok=True)
        return [NotTried("code", "note", "install it")] if len(looked) == 1 else [Finding("code", "ok", "fine")], {}

    monkeypatch.setattr(classes, "check", check)
    (tmp_path / "in").mkdir()
    download = class_download(tmp_path, "ann_1")
    rows = [classes.check_all(download, tmp_path / "out", progress=False)[0] for _ in range(3)]
    assert [row["notes"] for row in rows] == [1, 0, 0] and len(looked) == 2


def test_the_date_of_two_attempts_is_no_number_and_each_keeps_a_name(tmp_path, unlooked):
    names = ["张三", "李四", "王五"]
    put(tmp_path / "in", *(f"{date}_{name}.zip" for date in (20240101, 20240102) for name in names))
    for number, path in enumerate(sorted((tmp_path / "in").iterdir())):
        os.utime(path, (number, number))
    for _ in range(2):
        rows = classes.check_all(tmp_path / "in", tmp_path / "out", progress=False)
        assert sorted(row["handin"] for row in rows) == sorted(names)
    assert {path.name[:8] for path in unlooked} == {"20240102"}


def test_an_older_single_file_does_not_take_the_place_of_one_in_the_archive(tmp_path, unlooked):
    zipped(handed_in(tmp_path / "files", {"models.py": "zip", "report.md": "zip"}), tmp_path / "hw.zip")
    (tmp_path / "in").mkdir()
    for number, (name, text) in enumerate([("models.py", "old"), ("solver.py", "old"), ("hw.zip", None),
                                           ("report.md", "new"), ("film", "x")]):
        path = tmp_path / "in" / f"liwei_5512_{number}_{name}"
        (tmp_path / "hw.zip").rename(path) if text is None else path.write_text(text, encoding="utf-8")
    classes.check_all(tmp_path / "in", tmp_path / "out", progress=False)
    root, notes = opened(unlooked[0], tmp_path / "opened")
    assert {path.name: path.read_text(encoding="utf-8") for path in root.iterdir()} == {
        "models.py": "zip", "solver.py": "old", "report.md": "new"}
    assert [one.text for one in notes] == ["film was not looked at: it is too large, or has no ending"]


def test_a_lone_folder_of_a_class_is_entered_whatever_it_is_called(tmp_path, unlooked):
    zipped(put(tmp_path / "in", "CS_2024_1_work/ann_1_2_hw.zip", "CS_2024_1_work/bob_2_2_hw.zip"), tmp_path / "a.zip")
    assert len(classes.check_all(tmp_path / "a.zip", tmp_path / "out", progress=False)) == 2
    with pytest.raises(ValueError, match="is no regular expression"):
        classes.check_all(tmp_path / "a.zip", tmp_path / "out", progress=False, pattern="(")


def test_two_checks_of_one_class_take_turns(tmp_path, unlooked, capsys):
    put(tmp_path / "in", "ann.zip")
    (tmp_path / "out").mkdir()
    with files.locked(tmp_path / "out" / ".lock", 1):
        second = threading.Thread(target=teacher.main, args=[
            ["check", str(tmp_path / "in"), "--out", str(tmp_path / "out")]])
        second.start()
        for _ in range(6000):
            if "waiting for it" in capsys.readouterr().out:
                break
            time.sleep(0.05)
        assert second.is_alive() and not unlooked
    second.join(300)
    assert len(unlooked) == 1 and "1 of 1 are complete" in capsys.readouterr().out


def test_two_people_with_one_number_are_two_whoever_has_written_it(tmp_path):
    put(tmp_path, "Li Wei 20261129.zip", "Wang Fang 20261129.zip", "Anna Berg 20261130.zip", "Tom Koch 20261130.zip")
    found, _ = submissions(tmp_path)
    assert [one.name for one in found] == ["Anna Berg", "Li Wei", "Tom Koch", "Wang Fang"]


@pytest.mark.parametrize("old, new", [("2021312345_张三.zip", "2021312345_Zhang San.zip"),
                                      ("2021312345_hw4.zip", "2021312345_homework.zip")])
def test_two_spellings_of_one_person_are_one(tmp_path, old, new):
    put(tmp_path, old, new)
    os.utime(tmp_path / old, (0, 0))
    (one,), _ = submissions(tmp_path)
    assert one.path.name == new and one.student_id == "2021312345"


@pytest.mark.parametrize("old, new", [
    ("2021012345_张三_assignment_4.zip", "2021012345_张三_assignment_4_corrected.zip"),
    ("wangfang_5512_5001_lab-3.zip", "wangfang_5512_5009_lab-3-corrected.zip"),
    ("2021012345_张三_hw_v9.zip", "2021012345_张三_hw_v10.zip"),
])
def test_a_number_in_the_name_of_the_assignment_is_no_attempt(tmp_path, old, new):
    put(tmp_path, old, new)
    os.utime(tmp_path / old, (0, 0))
    (one,), _ = submissions(tmp_path)
    assert one.path.name == new


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere names of files are Unicode")
def test_a_name_in_gbk_as_unzip_leaves_it_and_one_that_begins_with_an_apostrophe(tmp_path, unlooked):
    (tmp_path / "in").mkdir()
    gbk = os.fsdecode("张三".encode("gbk") + b"_123_assignsubmission_file_x.zip")
    put(tmp_path / "in", gbk, "'-x_124_assignsubmission_file_x.zip")
    classes.check_all(tmp_path / "in", tmp_path / "out", progress=False)
    rows = read_own(tmp_path / "out" / "checks.csv")
    assert sorted(row["handin"] for row in rows) == ["'-x", "张三"]
    assert all((tmp_path / "out" / f"{row['handin']}.json").is_file() for row in rows)
