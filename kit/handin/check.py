"""The check of a hand-in: files, notebooks, pictures, report and code, one after the other.

Nothing in a hand-in is trusted: its files are only read, within limits, and its code runs in a sandbox.
"""

import codecs
import json
import re
import tempfile
import tokenize
import zipfile
from functools import partial
from pathlib import Path

from kit.files import is_no_room
from kit.handin import sandbox
from kit.handin.contents import (
    DIGESTS,
    HANDED_OUT,
    LARGEST_FILE,
    NEEDED,
    REPORT,
    handed_out,
    kit_digests,
)
from kit.handin.execution import check_execution
from kit.handin.findings import Finding, sanitize
from kit.handin.notebooks import check_notebooks, shown_scores
from kit.handin.opening import Refused, files_of, opened
from kit.handin.pictures import are_equal, check_pictures
from kit.handin.report import PEN, tables_in, unwritten
from kit.handin.texts import JSON, text_of
from kit.handin.trial import check_code
from kit.language import N_, tr

NAMED = 5  # model files at most, each by its name
EXECUTING = 3  # times as long as its code may run may its notebooks take
MODEL_FILES = {".pt", ".pth", ".ckpt", ".safetensors", ".onnx", ".h5", ".keras", ".pkl", ".pickle", ".pdparams", ".bin",
               ".npz", ".npy", ".tar", ".gguf"}


def check(handin, lists="data/lists", scratch=None, trusted=False, seconds=120, edition=None, vgg=None,
          execute=False):
    """Look through a hand-in.

    Parameters
    ----------
    handin : path, list of paths, or dict of path → str
        An archive, a folder, or several files, as `kit.handin.opening.opened` takes them.
    lists : path
        Folder with the list of the graded set.
    scratch : path, optional
        A new folder for a copy of its files, which stays; else a temporary one.
    trusted : bool
        The code is one's own, see `sandbox.run`.
    seconds : int
        How long its code may run.
    edition : dict of str → str, optional
        The student edition that was handed out, name of the file → text: with its machinery the code is tried. Without
        it with this kit's.
    vgg : path, optional
        A file of VGG's weights, called as torchvision does (`vgg19-dcbb9e9d.pth`): code that needs them is tried with
        it.
    execute : bool
        Execute its notebooks again, in a small setting, see `kit.handin.execution`.

    Returns
    -------
    findings : list of Finding
    scores : dict
        `psnr` and `ssim`, means over its pictures as measured here, where all are there.

    Raises FileNotFoundError for a hand-in that is not there, and OSError where its code cannot be kept in.
    """
    for path in files_of(handin):
        if not path.exists():
            raise FileNotFoundError(f"{path}: there is no such file or folder")
    temporary = tempfile.mkdtemp()
    try:
        try:
            root, elsewhere = opened(handin, scratch or Path(temporary, "handin"))
        except Refused as error:
            return [Finding("the file", "problem", str(error))], {}
        findings = [*_guarded("files", check_files, root), *elsewhere,
                    *_guarded("kit", partial(check_kit, edition=edition), root),
                    *_guarded(N_("notebooks"), check_notebooks, root)]
        scores = {}
        try:
            found, scores = check_pictures(root, lists)
            findings += found
        except Exception as error:
            findings.append(_problem("pictures", error))
        findings += _guarded("report", check_report, root)
        if (root / "models.py").is_file():
            options = Path(temporary, "trial"), trusted, seconds, edition, vgg
            findings += _guarded("code", lambda handed_in: check_code(handed_in, *options), root)
        if execute:
            findings += check_execution(root, Path(temporary, "execution"), EXECUTING * seconds, edition, vgg)
    finally:
        sandbox.remove(temporary)
    return findings, scores


def _guarded(what, look, root):
    """What a look at a part finds; a problem where it fails, whatever the files are."""
    try:
        return look(root)
    except Exception as error:
        if isinstance(error, sandbox.CannotKeepIn) or is_no_room(error):  # which is this machine's
            raise
        return [_problem(what, error)]


def _problem(what, error):
    kind = "" if isinstance(error, (ValueError, OSError)) else tr(
        "cannot be read ({kind}): ", kind=type(error).__name__)
    return Finding(what, "problem", sanitize(f"{kind}{error}")[:300])


def check_files(root):
    """Whether all is there that is needed, and nothing that is not wanted."""
    findings = []
    for name in NEEDED:
        other = _other_report(root) if name == REPORT and not (root / name).is_file() else None
        if other:
            findings.append(Finding("files", "note", tr(
                "{report} is missing, but {other} is there: read it; only one made by python -m kit report is looked "
                "through here", report=REPORT, other=sanitize(other))))
        elif not (root / name).is_file():
            findings.append(Finding("files", "problem", tr("{name} is missing", name=name)))
    models = []
    for path in sorted(root.rglob("*")):
        name = sanitize(path.relative_to(root))
        if path.is_file() and (path.suffix.lower() in MODEL_FILES or _is_model(path)):
            models.append(name)
        elif path.is_file() and path.stat().st_size > LARGEST_FILE * 2**20:
            findings.append(Finding("files", "problem", tr(
                "{name} has {size:.0f} MB; no file needs more than {largest}", name=name,
                size=path.stat().st_size / 2**20, largest=LARGEST_FILE)))
    findings += [Finding("files", "problem", tr("{name} is a model file; these are not handed in", name=name))
                 for name in models[:NAMED]]
    if len(models) > NAMED:
        findings.append(Finding("files", "problem",
                                tr("{count} more files are model files", count=len(models) - NAMED)))
    findings += [Finding("files", "note", tr("{name} is read by Python as {coding}: what one sees in it is not what "
                                             "runs", name=name, coding=sanitize(coding)))
                 for name in ("models.py", "solver.py") if (coding := _odd_coding(root / name))]
    if not list(root.glob("runs/*/history.csv")):
        findings.append(Finding("files", "note",
                                tr("no run's history is among them: how it was trained cannot be seen")))
    return findings or [Finding("files", "ok", tr("all there, and no model file"))]


def _odd_coding(file):
    """The encoding that a source names for itself, where it makes other letters of plain ones; else None."""
    plain = bytes(range(ord("0"), ord("Z") + 1))
    try:
        with open(file, "rb") as source:
            coding = tokenize.detect_encoding(source.readline)[0]
        name, same = codecs.lookup(coding).name, plain.decode(coding) == plain.decode("ascii")
    except (OSError, SyntaxError, LookupError):
        return None  # (it cannot be imported then)
    return None if same and not re.search("escape|utf.7|punycode", name) else coding


def _other_report(root):
    """The name of a report that is no Markdown."""
    found = sorted(path.relative_to(root) for path in root.rglob("*")
                   if path.suffix.lower() in (".docx", ".doc", ".odt", ".pdf", ".html", ".txt", ".tex")
                   and re.search("report|报告|報告", path.stem.lower()))
    return found[0].as_posix() if found else None


def check_kit(root, edition=None):
    """The files of the kit's machinery that the student has changed: they are not what tries the code here."""
    digests = json.loads(edition[f"kit/{HANDED_OUT}"]) if edition else handed_out()
    if digests is None:
        return []  # nothing to compare with
    try:
        own = json.loads(text_of(root / DIGESTS, JSON)) if (root / DIGESTS).is_file() else kit_digests(root / "kit")
        changed = sorted(name for name in own if own[name] != digests.get(name))
    except (ValueError, TypeError, AttributeError, OSError, RecursionError):
        return [Finding("kit", "note", tr("{file} cannot be read, so it is not known whether kit/ was changed",
                                          file=DIGESTS))]
    if not changed:
        return []
    named = ", ".join(f"kit/{sanitize(name)[:60]}" for name in changed[:5])
    if len(changed) > 5:
        named += tr(" and {count} more", count=len(changed) - 5)
    return [Finding("kit", "note", tr("changed: {names}; the code is tried with the kit as it was handed out",
                                      names=named))]


def _is_model(path):
    """Whether a file holds weights, whatever it is called: PyTorch's zip or pickle, or safetensors."""
    with open(path, "rb") as file:
        begin = file.read(4096)
    if begin.startswith(b"PK") and zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith("data.pkl") for name in archive.namelist())
        except zipfile.BadZipFile:
            return False
    return (begin[:1] == b"\x80" and begin[1:2] in b"\x02\x03\x04\x05"
            or begin[8:9] == b"{" and b'"data_offsets"' in begin)


def check_report(root):
    """Whether the report is there, in the student's own words, and names its sources."""
    if not (root / REPORT).is_file():
        return []  # said already
    if (root / REPORT).stat().st_size > 2**20:
        return [Finding("report", "problem", tr("it has more than 1 MB of text"))]
    lacking, empty = (", ".join(names) for names in unwritten(root / REPORT))
    findings = [Finding("report", "problem", tr("it has no section {names}", names=lacking))] if lacking else []
    if empty:
        findings.append(Finding("report", "problem", tr(
            "none of your own words are yet in its section {names} (see {pen})", names=empty, pen=PEN)))
    return [*(findings or [Finding("report", "ok", tr("written, with its sources"))]), *check_numbers(root)]


def check_numbers(root):
    """Whether the report's tables say what the executed test.ipynb says; of other runs the student's own may be."""
    shown = shown_scores(root / "test.ipynb")
    findings = []
    for verdict, table, words in zip(("problem", "note"), tables_in(root / REPORT),
                                     (tr("run python -m kit report again"), tr("is it of another run?"))):
        wrong = [(key, said) for key, several in table.items() if key in shown for said in several
                 if not any(are_equal(said, one) for one in shown[key])]
        if wrong:
            (graded, method), said = wrong[0]
            others = tr(", and {count} more", count=len(wrong) - 1) if len(wrong) > 1 else ""
            findings.append(Finding("report", verdict, tr(
                "a table says {said} of {method!r} on {set}, but test.ipynb {shown}{others}; {words}", said=_pair(said),
                method=sanitize(method), set=sanitize(graded), shown=_pair(shown[graded, method][0]), others=others,
                words=words)))
    return findings


def _pair(scores):
    return f"{scores[0]:.2f} / {scores[1]:.4f}"
