"""Who has handed in what: student, attempt and lateness, from the names that learning platforms give to files."""

import re
from collections import defaultdict, namedtuple
from pathlib import Path

from kit.handin.findings import sanitize
from kit.handin.opening import ARCHIVES, UNREADABLE, is_archive, is_junk

# `path` is what `kit.handin.opening.opened` takes; `order` grows with the time at which a platform took it; `older` are
# the attempts before it, which are not looked at.
Submission = namedtuple("Submission", "path student_id name platform_id late attempt order older",
                        defaults=["", "", "", False, 1, 0, ()])

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

    Raises ValueError for a pattern that is none.
    """
    try:
        patterns = [re.compile(text) for text in ([pattern] if pattern else PATTERNS.values())]
    except re.error as error:
        raise ValueError(f"the pattern {pattern!r} is no regular expression: {error}") from error
    groups, left_out = defaultdict(list), []
    for path in sorted(Path(folder).iterdir()):
        if path.name.startswith(".") or is_junk(path.name):
            continue
        one = _read_name(path, patterns)
        if path.is_file() and path.suffix.lower() in NO_HANDIN and not (one.platform_id or one.student_id):
            left_out.append(path.name)
        elif "_onlinetext" not in path.name:
            groups[one.platform_id or one.student_id or one.name].append(one)
    return sorted((_newest(group) for group in groups.values()), key=lambda one: (one.name, one.student_id)), left_out


def _read_name(path, patterns):
    """What the name of a file or folder says."""
    stem = _stem(path) or path.name
    for pattern in patterns:
        if found := pattern.fullmatch(stem):
            said = {key: value or "" for key, value in found.groupdict().items()}
            attempt = re.search(_ATTEMPT, said.get("file", ""))
            return Submission(path, said.get("student_id", ""), said.get("name", "").strip(),
                              said.get("platform_id", ""), bool(said.get("late")), int(attempt[1]) if attempt else 1,
                              int(said.get("order") or 0))
    return Submission(path, name=sanitize(stem))  # (a number at its end may be the student's)


def _stem(path):
    """The name of a folder, or of a file without its ending, which may have two parts."""
    if path.is_dir():
        return path.name
    ending = next((end for end in sorted((*ARCHIVES, *UNREADABLE), key=len, reverse=True)
                   if path.name.lower().endswith(end)), path.suffix)
    return path.name[: len(path.name) - len(ending)]


def _newest(group):
    """The newest of what one student has handed in; single files, without an archive, belong together."""
    def age(one):
        return one.attempt, one.order, one.path.stat().st_mtime

    whole = sorted((one for one in group if one.path.is_dir() or is_archive(one.path)
                    or one.path.suffix.lower() in UNREADABLE), key=age)
    if whole:
        return whole[-1]._replace(older=tuple(one.path for one in whole[:-1]))
    return max(group, key=age)._replace(path=[one.path for one in group])
