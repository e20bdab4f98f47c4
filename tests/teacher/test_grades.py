"""From checks, opinions and marks to grades, and into the files of learning platforms: nobody lost, nobody twice."""

import csv
import io
import re

import pytest

from kit.files import write_csv
from teacher import __main__ as teacher
from teacher import classes, grades, platforms
from teacher.course import read_course
from teacher.roster import read_own

CLASS = [  # student_id, name, platform_id, late, complete
    ("2021012345", "张三", "11", "", "yes"), ("", "Wang Fang", "12", "yes", "yes"), ("", "O'Brien Pat", "13", "", "no"),
    ("", "=SUM(A1)", "14", "", "yes"), ("", "张伟", "15", "", "yes"), ("", "张伟", "16", "", "yes"),
    ("2021012349", "李四", "", "", "missing")]


@pytest.fixture
def checked(tmp_path):
    """What `check` leaves of a class, with opinions on its pictures; gives the options that say where."""
    rows = []
    for number, person, platform, late, complete in CLASS:
        row = dict.fromkeys(classes.FIELDS, "") | {
            "student_id": number, "name": person, "platform_id": platform, "late": late, "complete": complete,
            "problems": 2 * (complete == "no"), "findings": "nothing was handed in" if complete == "missing" else ""}
        if complete != "missing":
            row["handin"] = "_".join(filter(None, [number, person])) + (f"_{platform}" if platform == "16" else "")
        rows.append(row)
    write_csv(tmp_path / "checks" / "checks.csv", rows, classes.FIELDS, for_spreadsheets=True)
    mos = [{"handin": row["handin"], "picture": "all", "mos": value}
           for row, value in zip(rows, (4.5, 2.5, 1, 3.25, 4))]
    mos.append({"handin": "(original)", "picture": "all", "mos": 5})
    write_csv(tmp_path / "scores" / "mos.csv", mos, ["handin", "picture", "mos"], for_spreadsheets=True)
    (tmp_path / "course.ini").write_text("[report]\nfirst = 6\nsecond = 4\n"
                                         "[late]\nfree_days = 1\npercent_per_day = 20\n", encoding="utf-8")
    return ["--checks", str(tmp_path / "checks"), "--scores", str(tmp_path / "scores"), "--marks",
            str(tmp_path / "marks.csv"), "--course", str(tmp_path / "course.ini"), "--out", str(tmp_path / "grades")]


def mark(path, **changes):
    """Mark reports in the template: hand-in → marks by column."""
    rows = read_own(path)
    for row in rows:
        row |= {"first": "6", "second": "2", **changes.get(row["handin"].split("_")[-1], {})}
    write_csv(path, rows, list(rows[0]), for_spreadsheets=True)


def test_a_class_is_graded_once_each(checked, tmp_path, capsys):
    teacher.main(["grades", *checked])
    assert "0 of 7 have a grade" in capsys.readouterr().out
    template = read_own(tmp_path / "marks.csv")
    assert [row["handin"] for row in template] == ["2021012345_张三", "Wang Fang", "O'Brien Pat", "=SUM(A1)", "张伟",
                                                   "张伟_16"]
    mark(tmp_path / "marks.csv", **{"Wang Fang": {"late_days": "3"}, "O'Brien Pat": {"pictures_percent": "10"}})
    teacher.main(["grades", *checked])
    assert "5 of 7 have a grade" in capsys.readouterr().out
    rows = {(row["name"], row["platform_id"]): row for row in read_own(tmp_path / "grades" / "grades.csv")}
    assert len(rows) == 7
    points = {person: row["points"] for person, row in rows.items()}
    assert points == {
        ("张三", "11"): "92.0",  # 20 + 40 + 40 · 8/10
        ("Wang Fang", "12"): "43.2",  # (20 + 40 · 1.5/3 + 32) · 60 %: one of three days is free
        ("O'Brien Pat", "13"): "46.0",  # 20 · 50 %, for there are two problems, + 40 · 10 % + 32
        ("=SUM(A1)", "14"): "82.0", ("张伟", "15"): "92.0", ("张伟", "16"): "", ("李四", ""): ""}
    assert rows["张伟", "16"]["open"] == "no opinion score" and rows["李四", ""]["open"] == "nothing was handed in"
    assert b"\n=" not in (tmp_path / "grades" / "grades.csv").read_bytes()


def test_what_is_not_known_is_open_and_counts_neither_way(checked, tmp_path):
    teacher.main(["grades", *checked])
    mark(tmp_path / "marks.csv", **{"张三": {"second": ""}})
    teacher.main(["grades", *checked])
    rows = {row["name"]: row for row in read_own(tmp_path / "grades" / "grades.csv")}
    assert rows["张三"]["open"] == "report: second" and rows["张三"]["points"] == ""
    assert rows["Wang Fang"]["open"] == "late, by how many days?"


def test_marks_stay_when_hand_ins_come_later(checked, tmp_path):
    teacher.main(["grades", *checked])
    mark(tmp_path / "marks.csv")
    rows = read_own(tmp_path / "checks" / "checks.csv")
    rows.append(dict(rows[0], handin="new", name="new", platform_id="99"))
    write_csv(tmp_path / "checks" / "checks.csv", rows, classes.FIELDS, for_spreadsheets=True)
    (tmp_path / "marks.csv").write_bytes((tmp_path / "marks.csv").read_text(encoding="utf-8-sig").replace(
        ",", ";").encode("gbk"))  # as a spreadsheet in China may save it
    teacher.main(["grades", *checked])
    marked = {row["handin"]: row["first"] for row in read_own(tmp_path / "marks.csv")}
    assert marked.pop("new") == "" and set(marked.values()) == {"6"} and len(marked) == 6


@pytest.mark.parametrize("change, words", [
    (lambda rows: rows + rows[:1], "has '2021012345_张三' more than once"),
    (lambda rows: [dict(rows[0], handin="nobody"), *rows[1:]], "'nobody' is no hand-in of checks.csv"),
    (lambda rows: [dict(rows[0], first="7"), *rows[1:]], "first of '.*张三' must be a number from 0 to 6, not '7'"),
    (lambda rows: [dict(rows[0], late_days="two"), *rows[1:]], "late_days of .* not 'two'"),
    (lambda rows: [{key: row[key] for key in row if key != "second"} for row in rows], "has no column 'second'")])
def test_marks_that_cannot_be_meant_are_named(checked, tmp_path, change, words):
    teacher.main(["grades", *checked])
    rows = change(read_own(tmp_path / "marks.csv"))
    write_csv(tmp_path / "marks.csv", rows, list(rows[0]), for_spreadsheets=True)
    before = (tmp_path / "marks.csv").read_bytes()
    with pytest.raises(SystemExit, match=words):
        teacher.main(["grades", *checked])
    assert (tmp_path / "marks.csv").read_bytes() == before


def test_opinions_on_nobody_are_named(checked, tmp_path):
    write_csv(tmp_path / "scores" / "mos.csv", [{"handin": "Zhang", "mos": 3}], ["handin", "mos"])
    with pytest.raises(SystemExit, match="mos.csv: 'Zhang' is no hand-in"):
        teacher.main(["grades", *checked])


# -------------------------------------------------------------------------------------------- platforms

WORKSHEET = """Identifier,Full name,ID number,Status,Grade,Maximum grade,Last modified (grade),Feedback comments
"Participant 11",张三,2021012345,"Submitted for grading",,50.00,-,
"Participant 12","Fang Wang",,"Submitted for grading",,50.00,-,
"Participant 13","Pat O'Brien",,"Submitted for grading",12.00,50.00,"Sunday, 1 November 2026, 9:00 AM",old
"Participant 15",张伟,,"Submitted for grading",,50.00,-,
"Participant 16",张伟,,"Submitted for grading",,50.00,-,
"Participant 17","李四",,"No submission",,50.00,-,
"""
GRADE_BOOK = """Student,ID,SIS User ID,SIS Login ID,Section,Warm-up (100),SRGAN (200),Final Score
    Points Possible,,,,,10.0,20.0,(read only)
"张, 三",11,2021012345,zhangsan,One,9,,50
"Wang, Fang",12,,wangfang,One,8,,40
"O'Brien, Pat",13,,pat,One,,3,30
"Student, Test",99,,,One,,,
"""


def imported_by_moodle(text):
    """Grades and comments as Moodle's offline grading takes them: the number at the end of "Participant 11"."""
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    assert all(re.fullmatch(r"Participant \d+", row["Identifier"]) for row in rows)
    return {int(row["Identifier"].removeprefix("Participant ")): (row["Grade"], row["Feedback comments"],
                                                                  row["Last modified (grade)"]) for row in rows}


def imported_by_canvas(text):
    """Scores by user as Canvas' grade book takes them: assignments by the number in their header, users by ID."""
    header, possible, *rows = csv.reader(io.StringIO(text))
    assert header[:5] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    assert possible[0].strip() == "Points Possible"
    places = {int(match[1]): i for i, name in enumerate(header) if (match := re.search(r"\((\d+)\)$", name))}
    return {int(row[1]): {number: row[i] for number, i in places.items()} for row in rows}


SUBMITTED = """Identifier,Full name,Grade,Last modified (submission),Last modified (grade)
Participant 11,张三,,"Sunday, 20 December 2026, 11:58 PM",-
Participant 12,Fang Wang,,"Tuesday, 22 December 2026, 12:01 AM",-
Participant 13,Pat O'Brien,,2026年12月21日 星期一 下午1:00,-
Participant 15,张伟,,-,-
"""


def test_lateness_comes_from_moodles_dates_where_it_is_not_marked(checked, tmp_path, capsys):
    with open(tmp_path / "course.ini", "a", encoding="utf-8") as file:
        file.write("[course]\ndeadline = 2026-12-20 23:59\n")
    teacher.main(["grades", *checked])
    mark(tmp_path / "marks.csv", **{"Wang Fang": {"late_days": ""}})
    (tmp_path / "w.csv").write_text(SUBMITTED, encoding="utf-8")
    teacher.main(["grades", *checked, "--into", str(tmp_path / "w.csv")])
    days = {row["name"]: row["late_days"] for row in read_own(tmp_path / "grades" / "grades.csv")}
    assert (days["张三"], days["Wang Fang"], days["O'Brien Pat"]) == ("0", "2", "1")
    checks = read_own(tmp_path / "checks" / "checks.csv")
    write_csv(tmp_path / "checks" / "checks.csv", [row | {"late": ""} for row in checks], classes.FIELDS)
    capsys.readouterr()
    teacher.main(["grades", *checked])
    assert "who was late is not known" in capsys.readouterr().out


@pytest.fixture
def graded(checked, tmp_path):
    teacher.main(["grades", *checked])
    mark(tmp_path / "marks.csv", **{"Wang Fang": {"late_days": "3"}, "O'Brien Pat": {"comment": "See, page 2:\nask."}})
    return checked


def test_moodles_worksheet_is_filled_and_else_as_it_was(graded, tmp_path, capsys):
    file = tmp_path / "Grades-SR-1.csv"
    file.write_bytes(WORKSHEET.encode("utf-8-sig"))
    teacher.main(["grades", *graded, "--into", str(file)])
    assert file.read_bytes() == WORKSHEET.encode("utf-8-sig")
    text = (tmp_path / "grades" / file.name).read_bytes().decode("utf-8")
    assert imported_by_moodle(text) == {
        11: ("46.00", "", "-"), 12: ("21.60", "", "-"), 15: ("46.00", "", "-"), 16: ("", "", "-"), 17: ("", "", "-"),
        13: ("21.00", "See, page 2:\nask.", "Sunday, 1 November 2026, 9:00 AM")}
    out = capsys.readouterr().out
    assert "4 grades filled in, 1 of them in the place of another" in out
    assert "without a grade: 张伟, 李四" in out and "not in it: =SUM(A1)" in out


def test_canvas_grade_book_is_filled_in_the_column_that_is_named(graded, tmp_path, capsys):
    file = tmp_path / "book.csv"
    file.write_text(GRADE_BOOK, encoding="utf-8")
    with pytest.raises(SystemExit, match="which of its columns is for the grades"):
        teacher.main(["grades", *graded, "--into", str(file)])
    with pytest.raises(SystemExit, match="has no column 'SRGAN'; it has 'Student'"):
        teacher.main(["grades", *graded, "--into", str(file), "--column", "SRGAN"])
    teacher.main(["grades", *graded, "--into", str(file), "--column", "SRGAN (200)"])
    found = imported_by_canvas((tmp_path / "grades" / "book.csv").read_text(encoding="utf-8"))
    assert found == {11: {100: "9", 200: "18.40"}, 12: {100: "8", 200: "8.64"}, 13: {100: "", 200: "8.40"},
                     99: {100: "", 200: ""}}
    assert "have a grade and are not in it: =SUM(A1), 张伟" in capsys.readouterr().out


def test_every_grade_is_written_once_or_named(graded, tmp_path):
    """Whatever order the file has, and whatever is missing in it."""
    rows = grades.grades(read_own(tmp_path / "checks" / "checks.csv"), read_own(tmp_path / "scores" / "mos.csv"),
                         {row["handin"]: row for row in read_own(tmp_path / "marks.csv")},
                         read_course(tmp_path / "course.ini"))
    header, *lines = WORKSHEET.splitlines(keepends=True)
    for kept in (lines[::-1], lines[::2], lines[1:], lines[:1]):
        (tmp_path / "w.csv").write_text(header + "".join(kept), encoding="utf-8")
        written, replaced, without, left = platforms.fill(tmp_path / "w.csv", tmp_path / "out.csv", rows, read_course())
        new = imported_by_moodle((tmp_path / "out.csv").read_text(encoding="utf-8"))
        old = imported_by_moodle(header + "".join(kept))
        assert new.keys() == old.keys() and len(without) == len(kept) - written
        assert sum(new[key] != old[key] for key in new) == written
        assert replaced == sum(old[key][0] != "" for key in old if new[key] != old[key])
        assert written + len(left) == sum(row["points"] != "" for row in rows)


def test_without_checks_it_says_what_to_run_first(tmp_path):
    for command in ("grades", "feedback", "summary"):
        with pytest.raises(SystemExit, match="checks.csv is not there: run python -m teacher check first"):
            teacher.main([command, "--checks", str(tmp_path), "--out", str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())


def test_what_has_no_weight_is_not_open(checked, tmp_path):
    (tmp_path / "scores" / "mos.csv").unlink()
    course = (tmp_path / "course.ini").read_text(encoding="utf-8")
    marks = "[marks]\nchecks = 60\npictures = 0\nreport = "
    (tmp_path / "course.ini").write_text(f"{course}\n{marks}40\n", encoding="utf-8")
    teacher.main(["grades", *checked])
    mark(tmp_path / "marks.csv")
    teacher.main(["grades", *checked])
    rows = {row["name"]: row for row in read_own(tmp_path / "grades" / "grades.csv")}
    assert (rows["张三"]["points"], rows["张三"]["open"]) == ("92.0", "")
    (tmp_path / "course.ini").write_text(f"{course}\n{marks}0\n", encoding="utf-8")
    (tmp_path / "marks.csv").unlink()
    teacher.main(["grades", *checked])
    assert read_own(tmp_path / "grades" / "grades.csv")[0]["points"] == "60.0"


def test_marks_of_another_student_of_that_name_are_named(checked, tmp_path):
    teacher.main(["grades", *checked])
    rows = read_own(tmp_path / "marks.csv")
    rows[0]["student_id"] = "2.02101E+09"  # as Excel saves it
    write_csv(tmp_path / "marks.csv", rows, list(rows[0]), for_spreadsheets=True)
    teacher.main(["grades", *checked])
    rows[0]["student_id"] = "2021019999"
    write_csv(tmp_path / "marks.csv", rows, list(rows[0]), for_spreadsheets=True)
    with pytest.raises(SystemExit, match="'2021012345_张三' is 2021019999 there, and 2021012345 in checks.csv"):
        teacher.main(["grades", *checked])


def test_what_could_not_be_looked_at_is_open_and_no_mark_for_nothing(checked, tmp_path, capsys):
    rows = read_own(tmp_path / "checks" / "checks.csv")
    rows[0] |= {"problems": "1", "findings": "the file: a.rar: is neither a folder nor a zip"}
    write_csv(tmp_path / "checks" / "checks.csv", rows, classes.FIELDS, for_spreadsheets=True)
    teacher.main(["grades", *checked])
    mark(tmp_path / "marks.csv")
    teacher.main(["grades", *checked])
    row = read_own(tmp_path / "grades" / "grades.csv")[0]
    assert row["points"] == "" and "its files could not be looked at" in row["open"]
    mark(tmp_path / "marks.csv", **{rows[0]["name"]: {"checks_percent": "0"}})
    teacher.main(["grades", *checked])
    assert "could not be looked at" not in read_own(tmp_path / "grades" / "grades.csv")[0]["open"]
