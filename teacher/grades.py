"""From checks, opinion scores and the marks of reports to grades.

A grade is made only where nothing is open: what is not known yet, lateness or a mark, counts neither as nothing nor as
everything.
"""

import re
from collections import Counter
from pathlib import Path

from kit.files import write_csv
from teacher.rating import NEAREST, ORIGINAL
from teacher.roster import read_own

# `points` is "" as long as something is `open`, which says what.
FIELDS = ["handin", "student_id", "name", "platform_id", "checks", "pictures", "report", "late_days", "points", "open",
          "comment", *(f"{name}_of" for name in ("checks", "pictures", "report", "points"))]  # at most


def make_marks(path, checks, course):
    """The table in which the instructor marks reports: made, or completed by hand-ins that are new.

    What is in it stays. Gives its rows, dictionaries by hand-in. Raises ValueError for rows that cannot be hand-ins' or
    columns that are not the rubric's.
    """
    path = Path(path)
    fields = ["handin", "student_id", "name", "late_days", *course.rubric, "checks_percent", "pictures_percent",
              "comment"]
    rows = read_own(path) if path.is_file() else []
    if rows and (lacking := [name for name in fields if name not in rows[0]]):
        raise ValueError(f"{path}: has no column {lacking[0]!r}; is it of another --course? Else add the column, or "
                         f"move the file away to get a new one")
    marks = _by_handin(path, rows)
    known = {row["handin"]: row for row in checks if row["handin"]}
    if strange := marks.keys() - known.keys():
        raise ValueError(f"{path}: {min(strange)!r} is no hand-in of checks.csv; remove the row, or run `check` again")
    for name, row in marks.items():
        there, here = (one["student_id"].lstrip("0") for one in (row, known[name]))
        if there and here and there != here and not re.search(r"E\+\d+$", there):  # (as Excel writes long ones)
            raise ValueError(f"{path}: {name!r} is {there} there, and {here} in checks.csv; put the marks to whom they "
                             f"belong")
    for name in known.keys() - marks.keys():
        marks[name] = {key: known[name].get(key, "") for key in ("handin", "student_id", "name")}
    if len(marks) > len(rows):
        write_csv(path, [marks[name] for name in known], [*fields, *(key for key in rows[0] if key not in fields)]
                  if rows else fields, for_spreadsheets=True)
    return marks


def grades(checks, opinions, marks, course, late=None):
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
    late : dict of str → float, optional
        How many days hand-ins are late, as `teacher.platforms.late_days` finds it, where the marks say nothing.

    Raises ValueError for a mark that is no number or too large, and for opinions on a hand-in that is not there.
    """
    found = _by_handin("mos.csv", [row for row in opinions if row["handin"] not in (ORIGINAL, NEAREST)])
    if strange := found.keys() - {row["handin"] for row in checks}:
        raise ValueError(f"mos.csv: {min(strange)!r} is no hand-in of checks.csv; make the rating page from its copies")
    return [_grade(row, found.get(row["handin"]), marks.get(row["handin"], {}), course,
                   (late or {}).get(row["handin"])) for row in checks]


def _grade(row, opinion, marks, course, late):
    grade = {key: row[key] for key in ("handin", "student_id", "name", "platform_id")}
    if not row["handin"]:  # missing, or of a name that others have, too
        return {**dict.fromkeys(FIELDS, ""), **grade, "open": row["findings"]}
    most = {**course.rubric, "checks_percent": 100, "pictures_percent": 100, "late_days": 1000}
    marked = {name: _mark(marks, name, most[name], row["handin"]) for name in most}
    late = late if marked["late_days"] is None else marked["late_days"]
    shares = {"checks": max(0, 1 - course.percent_per_problem / 100 * int(row["problems"])), "pictures": None,
              "report": None}
    if opinion is not None:
        shares["pictures"] = min(1, max(0, (float(opinion["mos"]) - course.none) / (course.full - course.none)))
    for name in ("checks", "pictures"):
        if marked[f"{name}_percent"] is not None:
            shares[name] = marked[f"{name}_percent"] / 100
    # (What has no weight is never open.)
    unknown = [f"report: {name}" for name in course.rubric if marked[name] is None and course.marks["report"]]
    if None not in (marked[name] for name in course.rubric):
        shares["report"] = sum(marked[name] for name in course.rubric) / (sum(course.rubric.values()) or 1)
    unlooked = row["findings"].startswith(("the file: ", "check: ")) and marked["checks_percent"] is None
    unknown += ["its files could not be looked at"] if unlooked and course.marks["checks"] else []
    unknown += ["no opinion score"] if shares["pictures"] is None and course.marks["pictures"] else []
    unknown += ["late, by how many days?"] if row["late"] and late is None else []
    parts = {name: None if share is None else course.marks[name] * share for name, share in shares.items()}
    points = "" if unknown else f"{sum(filter(None, parts.values())) * course.kept(late or 0):.1f}"
    return {**grade, **{name: "" if value is None else f"{value:.1f}" for name, value in parts.items()},
            "late_days": f"{late or 0:g}", "points": points, "open": "; ".join(unknown),
            "comment": marks.get("comment", "").strip(), **{f"{name}_of": f"{course.marks[name]:g}" for name in parts},
            "points_of": f"{course.points:g}"}


def _mark(marks, name, most, handin):
    """A number that the instructor has entered, or None."""
    text = marks.get(name, "").strip().removesuffix("%")
    try:
        value = float(text.replace(",", ".")) if text else None
    except ValueError:
        value = -1
    if value is not None and not 0 <= value <= most:
        raise ValueError(f"marks.csv: {name} of {handin!r} must be a number from 0 to {most:g}, not {text!r} (how many "
                         f"marks there are, the file says that --course names)")
    return value


def _by_handin(file, rows):
    """The rows of a table by their hand-in, each of which it may have once."""
    twice = [name for name, count in Counter(row["handin"] for row in rows).items() if count > 1]
    if twice:
        raise ValueError(f"{file}: has {twice[0]!r} more than once")
    return {row["handin"]: row for row in rows}
