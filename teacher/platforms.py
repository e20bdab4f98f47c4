"""Grade files of learning platforms, Moodle's worksheet and Canvas' grade book: what they know, and filling them in."""

import codecs
import csv
import math
import re
from datetime import datetime, timedelta
from pathlib import Path

from kit.files import write_whole
from teacher.roster import match, people, read_table

GRADE = ["grade", "成绩", "分数", "points", "score"]  # how Moodle and others call the column, in small letters
MAXIMUM = ["maximum grade", "最高成绩", "最高分"]
SUBMITTED = ["last modified (submission)", "最后修改（提交）", "最后修改(提交)", "最后修改 (提交)"]
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

    Grades are scaled to the maximum that the file names. Returns (how many were written, how many of them in the place
    of another, names in the file that have no grade, names that have one and are not in the file).
    """
    how, header, table = read_table(file)
    titles = [title.strip().lower() for title in header]
    place = _column(file, header, titles, column)
    maximum, comment = (next((titles.index(name) for name in names if name in titles), None)
                        for names in (MAXIMUM, COMMENT))
    possible = next((_number(row[place]) for row in table if row[0].strip() == "Points Possible"), None)  # Canvas
    pairs, left = _matched(file, header, table, [row for row in rows if row["points"]])
    without, replaced = [], 0
    for cells, person, row in pairs:
        if row is None:
            without.append(person["name"] or person["student_id"])
            continue
        most = possible or (maximum is not None and _number(cells[maximum])) or course.points
        grade = f"{float(row['points']) * most / course.points:.2f}"
        replaced += _number(cells[place]) not in (None, float(grade))
        cells[place] = grade
        if comment is not None and row["comment"]:
            cells[comment] = row["comment"]
    encoding = "utf-8-sig" if Path(file).read_bytes().startswith(codecs.BOM_UTF8) else "utf-8"
    with write_whole(out) as temporary, open(temporary, "w", newline="", encoding=encoding) as new:
        csv.writer(new, **how).writerows([header, *table])
    written = sum(row is not None for _, _, row in pairs)
    return written, replaced, without, [row["name"] or row["student_id"] for row in left]


def late_days(file, checks, deadline):
    """How many days late hand-ins are, by the dates in Moodle's worksheet: hand-in → days; {} for a file without.

    Dates in English and Chinese are read.
    """
    _, header, table = read_table(file)
    place = next((i for i, title in enumerate(header) if title.strip().lower() in SUBMITTED), None)
    if place is None or deadline is None:
        return {}
    pairs, _ = _matched(file, header, table, [row for row in checks if row["handin"]])
    days = {row["handin"]: _date(cells[place]) for cells, _, row in pairs if row}
    return {handin: max(0, math.ceil((when - deadline) / timedelta(days=1))) for handin, when in days.items() if when}


def _matched(file, header, table, rows):
    """Whose the lines of a grade file are: a list of (line, person, row or None), and the rows of nobody in it."""
    there = [(cells, person) for cells, person in zip(table, people(file, header, table)) if person]
    pairs, left = match([person for _, person in there], rows)
    return [(cells, person, row) for (cells, _), (person, row) in zip(there, pairs)], left


MONTHS = ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
          "december"]


def _date(text):
    """The date in a text such as "Sunday, 20 December 2026, 9:00 PM" or "2026年12月20日 星期日 21:00", or None."""
    english = re.search(r"(\d{1,2}) ([A-Za-z]+) (\d{4}), (\d{1,2}):(\d\d)(?: ?([AP]M))?", text)
    chinese = re.search(r"(\d{4})年 ?(\d{1,2})月 ?(\d{1,2})日.*?(上午|下午)? ?(\d{1,2}):(\d\d)", text)
    try:
        if english:
            day, month, year, hour, minute, half = english.groups()
            month = MONTHS.index(month.lower()) + 1
        else:
            year, month, day, half, hour, minute = chinese.groups()
            half = {"上午": "AM", "下午": "PM"}.get(half)
        hour = int(hour) % 12 + 12 * (half == "PM") if half else int(hour)
        return datetime(int(year), int(month), int(day), hour, int(minute))
    except (AttributeError, ValueError):
        return None


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
