"""What a check finds, as it is told: ok, note or problem, and a sentence."""

import re
from collections import namedtuple

from kit.console import Table, can_be_shown, printable
from kit.language import tr

# What a trial says where code asks for weights that would have to be downloaded.
NOT_HERE = "weights that are not here are not downloaded"

# What was looked at, "ok", "note" or "problem", and a sentence.
Finding = namedtuple("Finding", "what verdict text")


class NotTried(Finding):
    """What could not be looked at this time, for a reason that is this machine's."""

    __slots__ = ()


def table(findings):
    """The findings as a table."""
    return Table([[mark_of(one.verdict), tr(one.what), one.text] for one in findings],
                 ["", tr("what"), tr("finding")], left=3)


def mark_of(verdict):
    """The mark of a verdict, in letters that can be printed here."""
    marks, plain = {"ok": "✓", "note": "–", "problem": "✗"}, {"ok": "ok", "note": "-", "problem": "X"}
    return (marks if can_be_shown("".join(marks.values())) else plain)[verdict]


def is_complete(findings):
    return not any(one.verdict == "problem" for one in findings)


def as_dict(findings, scores):
    """Findings and scores for a JSON file."""
    return {"complete": is_complete(findings), **scores, "findings": [one._asdict() for one in findings]}


def sanitize(text):
    """A text from a stranger without what could steer a terminal or cannot be written to a file."""
    return printable(re.sub(r"\x1b\[[\d;]*m", "", str(text)))
