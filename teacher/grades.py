"""From checks, opinion scores and the marks of reports to grades, and into the grade files of learning platforms.

A grade is made only where nothing is open: what is not known yet, lateness or a mark, counts neither as nothing nor as
everything.
"""

import codecs
import csv
import re
from collections import Counter, namedtuple
from pathlib import Path

from kit.files import write_csv, write_whole
from teacher.rating import NEAREST, ORIGINAL
from teacher.roster import match, people, read_own, read_table

# `points` is "" as long as something is `open`, which says what.
FIELDS = ["handin", "student_id", "name", "platform_id", "checks", "pictures", "report", "late_days", "points", "open",
          "comment"]
Graded = namedtuple("Graded", "student_id name platform_id points comment")


def make_marks(path, checks, course):
    """The table in which the instructor marks reports: made, or completed by hand-ins that are new.

    What is in it stays. Gives its rows, dictionaries by hand-in. Raises ValueError for rows that cannot be hand-ins' or
    columns that are not the rubric's.
    """
    path = Path(path)
    fields = ["handin", "student_id", "name", "late_days", "checks", *course.rubric, "comment"]
    rows = read_own(path) if path.is_file() else []
    if rows and (lacking := [name for name in fields if name not in rows[0]]):
        raise ValueError(f"{path}: has no column {lacking[0]!r}; add it, or move the file away to get a new one")
    marks = _by_handin(path, rows)
    known = {row["handin"]: row for row in checks if row["handin"]}
    if strange := marks.keys() - known.keys():
        raise ValueError(f"{path}: {min(strange)!r} is no hand-in of checks.csv; remove the row, or run `check` again")
    for name in known.keys() - marks.keys():
        marks[name] = {key: known[name].get(key, "") for key in ("handin", "student_id", "name")}
    if len(marks) > len(rows):
        write_csv(path, [marks[name] for name in known], [*fields, *(key for key in rows[0] if key not in fields)]
                  if rows else fields, for_spreadsheets=True)
    return marks


def grades(checks, opinions, marks, course):
    """A row of `FIELDS` for each row of `checks`.

    Parameters
    ----------
    checks : list of dict
        The rows of checks.csv.
    opinions : list of dict
        Those of mos.csv, or an empty list before there are any.
    marks : dict of str → dict
        As `make_marks` gives them.
    course : Course

    Raises ValueError for a mark that is no number or too large, and for opinions on a hand-in that is not there.
    """
    found = _by_handin("mos.csv", [row for row in opinions if row["handin"] not in (ORIGINAL, NEAREST)])
    if strange := found.keys() - {row["handin"] for row in checks}:
        raise ValueError(f"mos.csv: {min(strange)!r} is no hand-in of checks.csv; make the rating page from its copies")
    return [_grade(row, found.get(row["handin"]), marks.get(row["handin"], {}), course) for row in checks]


def _grade(row, opinion, marks, course):
    grade = {key: row[key] for key in ("handin", "student_id", "name", "platform_id")}
    if row["complete"] == "missing":
        return {**dict.fromkeys(FIELDS, ""), **grade, "open": "nothing was handed in"}
    marked = {name: _mark(marks, name, most, row["handin"])
              for name, most in {**course.rubric, "checks": 100, "late_days": 1000}.items()}
    unknown = [f"report: {name}" for name in course.rubric if marked[name] is None]
    unknown += ["no opinion score"] if opinion is None else []
    unknown += ["late, by how many days?"] if row["late"] and marked["late_days"] is None else []
    checked = float(row["complete"] == "yes") if marked["checks"] is None else marked["checks"] / 100
    seen = 0 if opinion is None else (float(opinion["mos"]) - course.none) / (course.full - course.none)
    written = sum(marked[name] or 0 for name in course.rubric) / (sum(course.rubric.values()) or 1)
    parts = {"checks": course.marks["checks"] * checked, "pictures": course.marks["pictures"] * min(1, max(0, seen)),
             "report": course.marks["report"] * written}
    late = marked["late_days"] or 0
    return {**grade, **{name: f"{value:.1f}" for name, value in parts.items()}, "late_days": f"{late:g}",
            "points": "" if unknown else f"{sum(parts.values()) * course.kept(late):.1f}", "open": "; ".join(unknown),
            "comment": marks.get("comment", "").strip()}


def _mark(marks, name, most, handin):
    """A number that the instructor has entered, or None."""
    text = marks.get(name, "").strip().removesuffix("%")
    try:
        value = float(text.replace(",", ".")) if text else None
    except ValueError:
        value = -1
    if value is not None and not 0 <= value <= most:
        raise ValueError(f"marks.csv: {name} of {handin!r} must be a number from 0 to {most:g}, not {text!r}")
    return value


def _by_handin(file, rows):
    """The rows of a table by their hand-in, each of which it may have once."""
    twice = [name for name, count in Counter(row["handin"] for row in rows).items() if count > 1]
    if twice:
        raise ValueError(f"{file}: has {twice[0]!r} more than once")
    return {row["handin"]: row for row in rows}


# ------------------------------------------------------------------------------------------- platforms

GRADE = ["grade", "成绩", "分数", "points", "score"]  # how Moodle and others call the column, in small letters
MAXIMUM = ["maximum grade", "最高成绩", "最高分"]
COMMENT = ["feedback comments", "comment", "反馈评语", "反馈意见", "评语", "备注"]


def fill(file, out, rows, course, column=None):
    """Write a platform's grade file once more, with grades and comments in it, and all else as it was.

    Parameters
    ----------
    file : path
        Moodle's grading worksheet, Canvas' exported grade book, or another CSV with a row for each student.
    out : path
        Where to write it.
    rows : list of dict
        As `grades` gives them; those without points change nothing.
    column : str, optional
        The column for the grades, where it cannot be guessed.

    Grades are scaled to the maximum that the file names. Returns (how many were written, names in the file that have
    no grade, names that have one and are not in the file).
    """
    how, header, table = read_table(file)
    titles = [title.strip().lower() for title in header]
    place = _column(file, header, titles, column)
    maximum, comment = (next((titles.index(name) for name in names if name in titles), None)
                        for names in (MAXIMUM, COMMENT))
    possible = next((_number(row[place]) for row in table if row[0].strip() == "Points Possible"), None)  # Canvas
    graded = [Graded(*(row[key] for key in Graded._fields)) for row in rows if row["points"]]
    persons = people(file, header, table)
    there = [i for i, person in enumerate(persons) if person]
    pairs, left = match([persons[i] for i in there], graded)
    without = []
    for i, (person, one) in zip(there, pairs):
        if one is None:
            without += [person["name"] or person["student_id"]] if person["name"] != "Points Possible" else []
            continue
        most = possible or (maximum is not None and _number(table[i][maximum])) or course.points
        table[i][place] = f"{float(one.points) * most / course.points:.2f}"
        if comment is not None and one.comment:
            table[i][comment] = one.comment
    encoding = "utf-8-sig" if Path(file).read_bytes().startswith(codecs.BOM_UTF8) else "utf-8"
    with write_whole(out) as temporary, open(temporary, "w", newline="", encoding=encoding) as new:
        csv.writer(new, **how).writerows([header, *table])
    return len(pairs) - sum(one is None for _, one in pairs), without, [one.name or one.student_id for one in left]


def _column(file, header, titles, column):
    """The number of the column for the grades."""
    if column:
        if column not in header:
            raise ValueError(f"{file}: has no column {column!r}; it has {', '.join(map(repr, header))}")
        return header.index(column)
    found = [titles.index(name) for name in GRADE if name in titles] or [
        i for i, title in enumerate(header) if re.search(r" \(\d+\)$", title)]  # an assignment of Canvas'
    if len(found) != 1:
        raise ValueError(f"{file}: which of its columns is for the grades? Say --column NAME; it has "
                         f"{', '.join(map(repr, header))}")
    return found[0]


def _number(text):
    try:
        return float(text)
    except ValueError:
        return None
