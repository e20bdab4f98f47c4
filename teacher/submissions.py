"""Who has handed in what: student, attempt and lateness, from the names that learning platforms give to files."""

import os
import re
from collections import defaultdict, namedtuple
from pathlib import Path

from kit.handin.contents import NEEDED
from kit.handin.findings import sanitize
from kit.handin.opening import ARCHIVES, UNREADABLE, is_archive, is_junk
from teacher.roster import is_called

# `path` is a file or a folder, or a list where single files belong together, and `names` then what their student calls
# them; `order` grows with the time at which a platform took it; `older` are the attempts before it, which are not
# looked at.
Submission = namedtuple("Submission", "path student_id name platform_id late attempt order older names",
                        defaults=["", "", "", False, 1, 0, (), ()])

_NUMBER, _PERSON = r"(?P<student_id>[A-Za-z]?\d{6,12})(?!\d)", r"[^\W\d_]+(?:[ ·.'’][^\W\d_]+)*"
# How names begin, of files and folders alike; what is behind is the student's own file name.
PATTERNS = {
    "Moodle": r"(?P<name>.+?)_(?P<platform_id>\d+)_assignsubmission_(file|onlinetext)(_(?P<file>.*))?",
    "Canvas": r"(?P<name>[^_]+)_(?P<late>LATE_)?(?P<platform_id>\d+)_(?P<order>\d+)_(?P<file>.+)",
    "number first": rf"{_NUMBER}[ _\-+]*(?P<name>{_PERSON})?(?P<file>.*)",
    "name first": rf"(?P<name>{_PERSON})[ _\-+]+{_NUMBER}(?P<file>.*)",
}
# Beside hand-ins stand lists and pages of the platform's; those are none.
NO_HANDIN = {".csv", ".tsv", ".xlsx", ".xls", ".html", ".htm", ".txt", ".json", ".log", ".md"}
WHOSE = {"student_id", "name", "platform_id"}
_DATE = r"20\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
_ATTEMPT = r"(?:[-_ ]|\()(?:v|attempt|第)?(\d{1,2})\)?次?$"


def submissions(folder, pattern=None):
    """The hand-ins of a class, one for each student: the newest attempt.

    Parameters
    ----------
    folder : path
        As a platform's download is unpacked: a folder or a file for each student, or several files.
    pattern : str, optional
        Another regular expression for names, with groups such as (?P<student_id>…), (?P<name>…), (?P<file>…).

    Returns
    -------
    found : list of Submission
        Sorted by name.
    left_out : list of str
        Names of files that are no hand-ins.

    Raises ValueError for a pattern that is none, or names no group that tells students apart.
    """
    patterns = _patterns(pattern, PATTERNS.values())
    groups, left_out = defaultdict(list), []
    for path in sorted(Path(folder).iterdir()):
        if path.name.startswith(".") or is_junk(path.name):
            continue
        one = _read_name(path, patterns)
        if path.is_file() and path.suffix.lower() in NO_HANDIN and not (one.platform_id or one.student_id):
            left_out.append(path.name)
        elif "_onlinetext" not in path.name:
            groups[whose(one)].append(one)
    people = defaultdict(list)
    for one in (one for group in groups.values() for one in _without_shared_number(group)):
        people[whose(one)].append(one)
    return sorted(map(_newest, people.values()), key=lambda one: (one.name, one.student_id)), left_out


def _patterns(pattern, usual):
    """A pattern for names, if there is one, else the usual ones, compiled. Raises ValueError as `submissions` does."""
    try:
        found = [re.compile(text) for text in ([pattern] if pattern else usual)]
    except re.error as error:
        raise ValueError(f"the pattern {pattern!r} is no regular expression: {error}") from error
    if not WHOSE & found[0].groupindex.keys():
        raise ValueError(f"the pattern {pattern!r} needs one of the groups (?P<student_id>…), (?P<name>…) and "
                         f"(?P<platform_id>…), by which students are told apart")
    return found


def is_handin(folder, pattern=None):
    """Whether a folder is called as Moodle, or a pattern of one's own, calls those of students."""
    return any(each.fullmatch(folder.name) for each in _patterns(pattern, [PATTERNS["Moodle"]]))


def whose(one):
    """What tells a student from others: the platform's number, else the student's own, else the name."""
    return next(((key, getattr(one, key)) for key in ("platform_id", "student_id") if getattr(one, key)),
                ("name", one.name))


def _without_shared_number(group):
    """Hand-ins with one number; without it where several people have it and it is a date, or where many have it."""
    if group[0].platform_id or not group[0].student_id or not all(one.name and _is_whole(one) for one in group):
        return group
    people = []
    for one in group:
        if not any(is_called(one._asdict(), other._asdict()) for other in people):
            people.append(one)
    least = 2 if re.fullmatch(_DATE, group[0].student_id) else 3  # (two may be one person, who is called otherwise)
    return group if len(people) < least else [one._replace(student_id="") for one in group]


def _read_name(path, patterns):
    """What the name of a file or folder says."""
    stem = _stem(path) or path.name
    stem, ending = _readable(stem), path.name[len(stem):]
    for pattern in patterns:
        if found := pattern.fullmatch(stem):
            said = {key: value or "" for key, value in found.groupdict().items()}
            name, file = sanitize(said.get("name", "")).strip(), said.get("file", "")
            if f"{name}{file}{ending}" in NEEDED:  # a number, and what the file is called
                name, file = "", name + file
            if not (name or said.get("student_id") or said.get("platform_id")):
                break
            attempt = re.search(_ATTEMPT, file)
            return Submission(path, said.get("student_id", ""), name, said.get("platform_id", ""),
                              bool(said.get("late")), int(attempt[1]) if attempt else 1, int(said.get("order") or 0),
                              names=(file.strip(" _-+") + ending if file.strip(" _-+") else path.name,))
    return Submission(path, name=sanitize(stem), names=(path.name,))  # (a number at its end may be the student's)


def _readable(name):
    """A name, though it is in GBK, as `unzip` on Linux leaves it."""
    try:
        name.encode()
        return name
    except UnicodeEncodeError:
        return os.fsencode(name).decode("gb18030", "replace")


def _stem(path):
    """The name of a folder, or of a file without its ending, which may have two parts."""
    if path.is_dir():
        return path.name
    ending = next((end for end in sorted((*ARCHIVES, *UNREADABLE), key=len, reverse=True)
                   if path.name.lower().endswith(end)), path.suffix)
    return path.name[: len(path.name) - len(ending)]


def _newest(group):
    """The newest of what one student has handed in; single files belong together, and to the newest archive.

    Several are in the order of their age: in that of `opened`, which takes a later one for the better.
    """
    alike = len({re.sub(_ATTEMPT, "", _stem(one.path)) for one in group if _is_whole(one)}) == 1

    def age(one):  # a number is that of the attempt where the names are the same without: not in "lab 3, corrected"
        return one.order, one.attempt if alike else 0, one.path.stat().st_mtime

    group = sorted(group, key=age)
    *older, newest = [one for one in group if _is_whole(one)] or [None]
    single = [one for one in group if not _is_whole(one)]
    called = next((one.name for one in reversed(group) if one.name), "")
    if newest and not single:
        return newest._replace(name=called, older=tuple(one.path for one in older), names=())
    parts = [one for one in group if one is newest or one in single]
    return parts[0]._replace(path=[one.path for one in parts], name=called, late=any(one.late for one in parts),
                             older=tuple(one.path for one in older), names=tuple(one.names[0] for one in parts))


def _is_whole(one):
    """Whether something may be a whole hand-in: a folder or an archive."""
    return one.path.is_dir() or is_archive(one.path) or one.path.suffix.lower() in UNREADABLE
