"""The pages that are given back: to each student, and to the instructor."""

import json
import re
import zipfile

import numpy as np
import pytest

import create_data_lists
import utils
from imresize import imresize
from kit.files import write_csv
from kit.handin.contents import RESULT
from kit.handin.findings import Finding, as_dict
from teacher import __main__ as teacher
from teacher import classes

HOSTILE = "<script>document.title = 'pwned'</script><img src=x onerror=\"document.title = 'pwned'\">"
CLASS = {  # hand-in: (name, number at the platform, findings, how much noise its pictures have)
    "2021012345_张三": ("张三", "11", [Finding("the file", "ok", "fine")], 2),
    "Wang_Fang": ("Wang_Fang", "12", [Finding("report", "problem", "it has no section 'Sources'"),
                                      Finding("train.ipynb", "problem", "it was not executed"),
                                      Finding("code", "note", HOSTILE)], 12),
    HOSTILE.replace("/", "／"): (HOSTILE, "", [Finding("files", "problem", f"{HOSTILE} is missing")], None),
}


@pytest.fixture
def checked(tmp_path, photograph):
    """What `check`, `similarity`, `scores` and `grades` leave of a class; gives the options that say where."""
    random, rows = np.random.default_rng(0), []
    for i, name in enumerate(("eye", "ear")):
        detail = np.ascontiguousarray(photograph[40 + 80 * i:104 + 80 * i, 150:246])
        utils.save_picture(tmp_path / "Set5" / f"{name}.png", detail)
    create_data_lists.create_data_lists(None, {"Set5": tmp_path / "Set5"}, tmp_path / "lists", progress=False)
    for handin, (person, number, findings, noise) in CLASS.items():
        row = dict.fromkeys(classes.FIELDS, "") | {"handin": handin, "name": person, "platform_id": number,
                                                   "complete": "no", "problems": 1, "notes": 0}
        result = {"digest": "x", **as_dict(findings, {})}
        (tmp_path / "checks").mkdir(exist_ok=True)
        (tmp_path / "checks" / f"{handin}.json").write_text(json.dumps(result), encoding="utf-8")
        row["findings"] = "; ".join(one.text for one in findings)
        if noise:
            row |= {"psnr": str(30 - noise), "ssim": "0.8"}
            for file in (tmp_path / "Set5").glob("*.png"):
                picture = utils.bicubic(imresize(utils.read_picture(file), 1 / 4))
                noisy = np.clip(picture + random.normal(0, noise, picture.shape), 0, 255).round().astype(np.uint8)
                utils.save_picture(tmp_path / "checks" / "handins" / handin / RESULT / "Set5" / file.name, noisy)
        rows.append(row)
    rows.append(dict.fromkeys(classes.FIELDS, "") | {"name": "李四", "complete": "missing",
                                                    "findings": "nothing was handed in"})
    write_csv(tmp_path / "checks" / "checks.csv", rows, classes.FIELDS, for_spreadsheets=True)
    write_csv(tmp_path / "checks" / "similarity.csv", [{"first": HOSTILE, "second": "Wang_Fang", "code": 0.8,
                                                        "pictures": "eye"}], ["first", "second", "code", "pictures"])
    mos = [{"handin": handin, "picture": picture, "mos": value} for handin, value in
           (("2021012345_张三", 2.0), ("Wang_Fang", 4.25)) for picture in ("all", "eye", "ear")]
    write_csv(tmp_path / "scores" / "mos.csv", mos[::3], ["handin", "picture", "mos"])
    write_csv(tmp_path / "scores" / "mos_pictures.csv", [row for row in mos if row["picture"] != "all"],
              ["handin", "picture", "mos"])
    grade = {"handin": "Wang_Fang", "checks": 10, "pictures": 40, "report": 20.5, "late_days": 0, "points": 70.5,
             "checks_of": 20, "pictures_of": 40, "report_of": 40, "points_of": 100, "comment": HOSTILE}
    write_csv(tmp_path / "grades.csv", [grade], list(grade))
    return ["--checks", str(tmp_path / "checks"), "--scores", str(tmp_path / "scores"), "--grades",
            str(tmp_path / "grades.csv"), "--list", str(tmp_path / "lists" / "Set5.csv")]


def students_of_moodle(archive, numbers):
    """To whom Moodle's import gives the files of a zip: it takes the first part of a path that is
    name_number_plugintype_plugin, with a number that it knows, and that a plugin of this name is there."""
    found = {}
    for path in archive.namelist():
        for part in path.split("/"):
            words = part.split("_", 4)
            if len(words) >= 4 and words[1].isdigit() and words[1] in numbers and words[2:4] == ["assignsubmission",
                                                                                                 "file"]:
                found[words[1]] = path
                break
    return found


@pytest.mark.parametrize("language, words", [
    ("en", ["What became of your hand-in", "Problems", "Restart the kernel, run all cells", "opinion, 1 to 5: 4.25",
            "<td>70.5 / 100", "original"]),
    ("zh", ["作业反馈", "问题", "重启内核，从头到尾运行全部单元格", "主观评分（1–5）: 4.25", "<td>70.5 / 100",
            "原图"])])
def test_each_student_gets_a_page_that_moodle_takes_back(checked, tmp_path, language, words):
    teacher.main(["feedback", *checked, "--out", str(tmp_path / "out"), "--language", language])
    page = (tmp_path / "out" / "Wang_Fang.html").read_text(encoding="utf-8")
    assert page.count("onerror") == 1  # the comment's; the note is for the instructor
    for word in words:
        assert word in page, word
    assert page.index("it was not executed") < page.index("pwned")  # problems first
    assert page.count("<img") == 4 and page.count("data:image/jpeg") == 4
    with zipfile.ZipFile(tmp_path / "out" / "feedback.zip") as archive:
        places = {"11": "张三_11_assignsubmission_file_", "12": "Wang Fang_12_assignsubmission_file_"}
        assert students_of_moodle(archive, {"11", "12"}) == {n: f"{place}/feedback.html" for n, place in places.items()}
        assert archive.read("Wang Fang_12_assignsubmission_file_/feedback.html").decode() == page
        assert len(archive.namelist()) == 3
    assert "70.5" not in (tmp_path / "out" / "2021012345_张三.html").read_text(encoding="utf-8")


def test_before_there_are_opinions_and_grades_there_is_feedback_on_the_checks(checked, tmp_path):
    nowhere = ["--scores", str(tmp_path / "none"), "--grades", str(tmp_path / "none.csv")]
    teacher.main(["feedback", *checked, *nowhere, "--out", str(tmp_path / "out")])
    page = (tmp_path / "out" / "Wang_Fang.html").read_text(encoding="utf-8")
    assert "opinion" not in page and "Points" not in page and "dB, SSIM" in page


def test_the_class_on_one_page(checked, tmp_path):
    teacher.main(["summary", *checked, "--out", str(tmp_path / "summary.html")])
    page = (tmp_path / "summary.html").read_text(encoding="utf-8")
    assert "3 hand-ins, 0 of them complete; 1 missing" in page and "李四: nothing was handed in" in page
    assert "best: Wang_Fang, opinion 4.25" in page and "worst: 2021012345_张三, opinion 2.00" in page
    assert page.count("data:image/png") == 2 and "80% of the code; pictures: eye" in page
    nowhere = ["--scores", str(tmp_path / "none"), "--grades", str(tmp_path / "none.csv")]
    teacher.main(["summary", *checked, *nowhere, "--out", str(tmp_path / "summary.html")])
    page = (tmp_path / "summary.html").read_text(encoding="utf-8")
    assert re.search(r"best: 2021012345_张三, \d\d\.\d\d dB", page) and page.count("data:image/png") == 1


def test_what_strangers_wrote_is_only_shown(checked, tmp_path):
    """Escaped; and a browser would run nothing that is in the page but the page's own script, known by its digest."""
    teacher.main(["feedback", *checked, "--out", str(tmp_path / "out"), "--notes"])
    teacher.main(["summary", *checked, "--out", str(tmp_path / "out" / "summary.html")])
    pages = [path.read_text(encoding="utf-8") for path in (tmp_path / "out").glob("*.html")]
    assert len(pages) == 4
    for page in pages:
        assert "<img src=x" not in page and "<script>document.title" not in page
        assert page.count("<script>") == ("script-src 'sha256-" in page) == ("The class" in page)
        assert "default-src 'none'" in page


@pytest.mark.parametrize("command", ["feedback", "summary", "similarity"])
def test_without_the_list_of_the_graded_pictures_nothing_is_said_about_them(checked, tmp_path, capsys, monkeypatch,
                                                                            command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("teacher.similarity.alike", lambda pictures, *_: {})
    where = [str(tmp_path / "checks" / "handins")] if command == "similarity" else checked[:-2]
    out = ["--out", str(tmp_path / ("out" if command != "summary" else "summary.html"))]
    with pytest.raises(SystemExit, match="--list: there is no list lists/set5.csv"):
        teacher.main([command, *where, "--list", "lists/set5.csv", *out])
    teacher.main([command, *where, *out])
    assert "pictures are not" in capsys.readouterr().out
    if command == "feedback":
        page = (tmp_path / "out" / "Wang_Fang.html").read_text(encoding="utf-8")
        assert "None of the graded pictures" not in page and "Pictures and scores" not in page


def test_points_that_are_left_out_are_named(checked, tmp_path, capsys):
    teacher.main(["feedback", *checked, "--grades", "none.csv", "--out", str(tmp_path / "out")])
    assert "points are left out: there is no none.csv" in capsys.readouterr().out
