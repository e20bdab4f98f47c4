"""What a hand-in is made of: its pictures, its code, and its zip."""

import hashlib
import json
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

from datasets import TestDataset
from kit.evaluation.measure import scale_of
from kit.files import KIT, remove_left_over, write_whole
from kit.handin.texts import text_of
from kit.runs.history import PREDICTIONS
from utils import save_picture

NOTEBOOKS = ["train.ipynb", "test.ipynb", "super_resolution.ipynb"]
REPORT, REPORT_PICTURES = "report.md", "report"
NEEDED = ["models.py", "solver.py", *NOTEBOOKS, REPORT]
RESULT = Path("results", "handin")  # the pictures to be graded, <set>/<picture>.png, and result.json
DIGESTS = "kit.json"  # in the zip: what the student's copy of the kit's machinery is told by
HANDED_OUT = "handout.json"  # in the kit/ of a student edition: the same, as it was made
# Folders of the kit and of what it makes; every other folder with Python files in it is a package of the student's.
NOT_OWN = {"kit", "tests", "teacher", "weights", "data", "runs", "results", REPORT_PICTURES}
# What tells an environment, or another copy of the kit.
NO_PACKAGE = ["pyvenv.cfg", "conda-meta", "site-packages", "kit/__init__.py"]
LARGEST_FILE = 20  # megabytes


def save_result(csv_file, methods, name, run=None, folder=RESULT):
    """Write the pictures that are graded, every picture of a list enlarged by the method `name`, for the hand-in.

    The files are `<folder>/<set>/<picture>.png`; `<folder>/result.json` says the set, the method, by whose row in
    `test.ipynb`'s table they are measured, and the run that it comes from. Raises ValueError for a method that is not
    there.
    """
    if name not in methods:
        raise ValueError(f"there is no method {name!r}; choose one of {', '.join(map(repr, methods))}")
    csv_file, folder = Path(csv_file), Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    for pair in TestDataset(csv_file, scale_of(methods)):
        save_picture(folder / csv_file.stem / f"{pair.name}.png", methods[name](pair.lr))
    with write_whole(folder / "result.json") as temporary:
        temporary.write_text(json.dumps({"set": csv_file.stem, "method": name, "run": run}, indent=1), encoding="utf-8")


def own_code(folder):
    """The Python files of a student's folder that are the student's own, as sorted relative paths.

    Those beside the notebooks, and those of packages of their own; not the kit's machinery, and not its tests.
    """
    folder = Path(folder)
    packages = [place for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")
                and place.name not in NOT_OWN and not any((place / sign).exists() for sign in NO_PACKAGE)]
    files = [*folder.glob("*.py"), *(path for place in packages for path in place.rglob("*.py"))]
    return sorted((path.relative_to(folder) for path in files if path.is_file()), key=lambda path: path.as_posix())


def collected(folder="."):
    """The files of a student's folder that are handed in, as paths relative to it; of pictures those in the report."""
    folder = Path(folder)
    patterns = ["*.ipynb", REPORT, f"{REPORT_PICTURES}/*.png", f"{RESULT.as_posix()}/**/*.png",
                f"{RESULT.as_posix()}/result.json", "results/scores.csv", "results/table.txt", "results/cells.jsonl",
                "runs/*/settings.json", "runs/*/history.csv", f"runs/{PREDICTIONS}"]
    files = {path.relative_to(folder) for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    with suppress(OSError, ValueError):  # (a report that cannot be read is told by the check)
        report = text_of(folder / REPORT)
        files -= {path for path in files if path.parent.name == REPORT_PICTURES and path.suffix == ".png"
                  and path.name not in report and path.name.replace(" ", "%20") not in report}  # of an earlier choice
    return sorted(files | set(own_code(folder)), key=lambda path: path.as_posix())


def make_zip(folder, path):
    """Write the zip of what is handed in, with the digests of the student's kit/ instead of kit/ itself."""
    remove_left_over(Path(path).absolute().parent, hours=1)  # of a call that was killed
    with write_whole(path) as temporary, zipfile.ZipFile(  # (a computer without a clock may be in 1970)
            temporary, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for file in collected(folder):
            archive.write(Path(folder, file), file.as_posix())
        archive.writestr(DIGESTS, json.dumps(kit_digests(Path(folder, "kit")), indent=1))


def kit_digests(kit=KIT):
    """What tells the machinery of one kit from another's: name of each Python file in kit/ → digest of its text."""
    return {path.relative_to(kit).as_posix(): text_digest(path.read_text(encoding="utf-8", errors="replace"))
            for path in sorted(Path(kit).rglob("*.py"))}


def text_digest(text):
    """A short digest of a text; line ends do not count."""
    return hashlib.sha256("\n".join(text.splitlines()).encode()).hexdigest()[:16]


def handed_out():
    """The digests of the kit/ of this student edition as it was made; None in the whole kit."""
    note = KIT / HANDED_OUT
    return json.loads(note.read_text(encoding="utf-8")) if note.is_file() else None
