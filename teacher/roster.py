"""Tables of people, as learning platforms and spreadsheets write them: class lists, and grade files to be filled in."""

import csv
import io
import itertools
import re
import unicodedata

from kit.handin.texts import text_of

# How platforms call the columns of a class list, in small letters.
COLUMNS = {"student_id": ["学号", "student id", "student_id", "id number", "sis user id", "sis login id", "number"],
           "name": ["姓名", "name", "full name", "student", "学生姓名"],
           "platform_id": ["id", "user id", "participant", "identifier"], "email": ["email", "email address", "邮箱"]}

NOBODY = {"Points Possible", "Student, Test"}  # lines of Canvas' grade book that are no student's


def read_roster(file):
    """A class list, a CSV as platforms export it: a list of dictionaries with student_id, name, platform_id, email.

    Raises ValueError for a file without a column for numbers or names.
    """
    return [person for person in people(file, *read_table(file)[1:]) if person]


def read_table(file):
    """A CSV as platforms and spreadsheets write it: (how it is written, header, rows), lists of texts of one length.

    Raises ValueError for a file without a row, and for what is no table.
    """
    text = text_of(file)
    first = (text.splitlines() or [""])[0]
    delimiter = max("\t;,", key=first.count)
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row] or [[]]
    except csv.Error as error:
        raise ValueError(f"{file}: cannot be read as a table ({error})") from error
    if not header:
        raise ValueError(f"{file}: is empty")
    return {"delimiter": delimiter}, header, [(row + [""] * len(header))[:len(header)] for row in rows]


def read_own(file):
    """The rows of a table that `write_csv` has written for spreadsheets, as dictionaries, though one has saved it anew.

    Raises FileNotFoundError where it is not there.
    """
    _, header, rows = read_table(file)
    return [{name: re.sub(r"^'(?='*[=+\-@\t\r])", "", cell) for name, cell in zip(header, row)} for row in rows]


def people(file, header, rows):
    """Who the rows of a class list are, as `read_roster` gives them; None for a row that is nobody's."""
    def place(names):
        return next((i for name in names for i, title in enumerate(header) if title.strip().lower() == name), None)

    def cell(row, i):
        return "" if i is None else row[i].strip()

    places = {key: place(names) for key, names in COLUMNS.items()}
    first, last = place(["first name", "名"]), place(["last name", "surname", "姓"])
    if places["student_id"] is None and places["name"] is None and None in (first, last):
        raise ValueError(f"{file}: has no column for numbers or names; give one the header student_id or name")
    found = []
    for row in rows:
        person = {key: cell(row, i) for key, i in places.items()}
        person["name"] = person["name"] or f"{cell(row, first)} {cell(row, last)}".strip()
        person["platform_id"] = re.sub(r"\D", "", person["platform_id"])  # "Participant 12345"
        is_one = person["name"] not in NOBODY and (person["student_id"] or person["name"])
        found.append(person if is_one else None)
    return found


def match(roster, found):
    """Who of a roster has handed in: a list of (person, row or None), and what is left of `found`: nobody's in it.

    `found` are rows of a table, dictionaries with student_id, name and platform_id. Numbers decide where both have one;
    else the name, if it is nobody else's.
    """
    pairs, rest = [None] * len(roster), list(found)
    for fits in (_same_number, _same_name):
        for i, person in enumerate(roster):
            candidates = [one for one in rest if pairs[i] is None and fits(person, one)]
            others = [other for j, other in enumerate(roster) if j != i and pairs[j] is None
                      and any(fits(other, one) for one in candidates)]
            if len(candidates) == 1 and not others:
                pairs[i] = candidates[0]
                rest.remove(candidates[0])
    return list(zip(roster, pairs)), rest


def _numbers(person, one):
    """The pairs of numbers that both have."""
    return [(person[key].lower(), one[key].lower()) for key in ("student_id", "platform_id")
            if person[key] and one[key]]


def _same_number(person, one):
    numbers = _numbers(person, one)
    return bool(numbers) and numbers[0][0] == numbers[0][1]


def _same_name(person, one):
    return not _numbers(person, one) and is_called(person, one)


def is_called(person, one):
    """Whether a person and a hand-in have the same name: "Li Wei", "WeiLi" and "liwei" are, "Lei Wi" is not.

    The words of one, in some order, are then the letters of the other.
    """
    both = [re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", name).casefold())
            for name in (person["name"], one["name"])]
    orders = [[words] if len(words) > 6 else itertools.permutations(words) for words in both]
    written = ["".join(words) for words in both]
    return written[0] != "" and any("".join(words) == other for mine, other in zip(orders, reversed(written))
                                    for words in mine)
