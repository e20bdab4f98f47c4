"""What only the course knows: read, refused, and told to students in both languages."""

import subprocess
import sys

import pytest

from helpers import ROOT
from teacher import __main__ as teacher
from teacher.course import read_course, told

FILLED = """[course]
deadline = 2026-12-31 23:59
hand_in.en = Hand in on Moodle, under "SRGAN".
hand_in.zh = 请在网络学堂“SRGAN”作业中提交。
[marks]
checks = 10
[report]
方法 = 6
conclusions = 4
[late]
free_days = 2
percent_per_day = 25
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk"])
def test_a_courses_own_facts(tmp_path, encoding):
    file = tmp_path / "course.ini"
    file.write_bytes(FILLED.encode(encoding))
    course = read_course(file)
    assert course.deadline.isoformat() == "2026-12-31T23:59:00" and course.points == 10 + 40 + 40
    assert course.rubric == {"方法": 6, "conclusions": 4}  # the course's own, in the place of the kit's
    assert [course.kept(days) for days in (0, 2, 3, 99)] == [1, 1, 0.75, 0]
    assert read_course().points == 100


@pytest.mark.parametrize("line, words", [
    ("[mark]\nchecks = 3", r"no section \[mark\].*did you mean 'marks'"),
    ("[marks]\npicture = 3", r"\[marks\] has no entry 'picture'.*did you mean 'pictures'"),
    ("[marks]\nchecks = many", r"\[marks\] checks must be a number from 0 on, not 'many'"),
    ("[course]\ndeadline = tomorrow", "deadline must be like 2026-12-31 23:59, not 'tomorrow'"),
    ("[pictures]\nfull = 1", "full must be more than none"), ("[report]\n", "no rubric"),
    ("[report]\ncomment = 3", "'comment' is another column"), ("checks = 3", "section")])
def test_what_makes_no_sense_is_refused_with_its_place(tmp_path, line, words):
    (tmp_path / "course.ini").write_text(line, encoding="utf-8")
    with pytest.raises(ValueError, match=f"course.ini: .*{words}"):
        read_course(tmp_path / "course.ini")


def test_students_are_told_in_both_languages(tmp_path, capsys):
    (tmp_path / "course.ini").write_text(FILLED, encoding="utf-8")
    teacher.main(["handout", "--out", str(tmp_path / "out"), "--course", str(tmp_path / "course.ini")])
    english, chinese = ((tmp_path / "out" / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
    assert "**Hand in by 2026-12-31 23:59.** Hand in on Moodle" in english and "takes 25 % of the points" in english
    assert "**截止时间：2026-12-31 23:59。**请在网络学堂" in chinese and "扣除得分的 25%" in chinese
    for text in (english, chinese):
        assert "方法 6" in text and "90" in text and "25" in text
    assert "your course says" in told(None)["where"]["en"]


def test_help_does_not_wait_for_pytorch():
    program = "import sys, teacher.__main__\nprint('torch' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr
