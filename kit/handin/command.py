"""The commands `python -m kit check` and `python -m kit zip`."""

import json
import re
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from kit.console import Parser
from kit.files import write_whole
from kit.handin.check import check
from kit.handin.contents import make_zip
from kit.handin.findings import as_dict, is_complete, mark_of, table
from kit.language import tr


def check_command(arguments=None, prog="python -m kit check"):
    """Show what an instructor's check would find."""
    parser = Parser(prog=prog, description="Say what is missing in what you are going to hand in; ends with 1 when "
                    "something is.", epilog=f"Example: {prog}")
    parser.add_argument("handin", nargs="?", help="a zip or folder; without it, what `zip` would put into one")
    parser.add_argument("--json", metavar="FILE", help="write what was found to a file, too")
    options = _parsed(parser, arguments)
    with _told(parser.prog), tempfile.TemporaryDirectory() as temporary:
        _check(options.handin or _packed(temporary), options, trusted=not options.handin)
        print("\n" + (tr("Complete") if options.handin else tr("Complete: python -m kit zip NUMBER makes the zip")))


def zip_command(arguments=None, prog="python -m kit zip"):
    """Make the zip, if nothing is missing."""
    parser = Parser(prog=prog, description="Make the zip to hand in, if nothing is missing.",
                    epilog=f"Example: {prog} 2021012345")
    parser.add_argument("name", help="what your course wants it to be called, such as your number")
    options = _parsed(parser, arguments)
    if not re.fullmatch(r"\w[\w.-]*", options.name):
        parser.error(f"the name must be a word of letters, digits, '_', '-' and '.', not {options.name!r}")
    with _told(parser.prog), tempfile.TemporaryDirectory() as temporary:
        packed = _packed(temporary)
        _check(packed, options, trusted=True)
        with write_whole(f"{options.name}.zip") as file:
            shutil.copyfile(packed, file)
    size = Path(f"{options.name}.zip").stat().st_size / 1e6
    print("\n" + tr("{name} ({size:.1f} MB): hand in this file", name=f"{options.name}.zip", size=size))


def _parsed(parser, arguments):
    parser.add_argument("--lists", default="data/lists", metavar="DIR", help="default: %(default)s")
    return parser.parse_args(arguments)


def _packed(temporary):
    """The zip of this folder, in a temporary one."""
    make_zip(".", Path(temporary, "handin.zip"))
    return Path(temporary, "handin.zip")


def _check(handin, options, trusted):
    """Check, show and note what was found; ends the program when something is missing."""
    findings, scores = check(handin, options.lists, trusted=trusted)
    print(table(findings))
    if getattr(options, "json", None):
        with write_whole(options.json) as file:
            file.write_text(json.dumps(as_dict(findings, scores), indent=1), encoding="utf-8")
    if not is_complete(findings):
        sys.exit("\n" + tr("Not complete yet: see {mark} above", mark=mark_of("problem")))


@contextmanager
def _told(prog):
    """A context whose errors end the program with one line."""
    try:
        yield
    except (ValueError, OSError) as error:
        sys.exit(f"{prog}: error: {error}")
