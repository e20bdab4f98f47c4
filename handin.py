"""Handing in: what belongs to a hand-in, whether it is complete, and the zip.

    python handin.py check            # what an instructor's check would find
    python handin.py zip 2021012345   # the zip to hand in, made when nothing is missing

A hand-in is all code, the executed notebooks, the pictures that are graded, the records of the runs and the report;
never a model file. What is checked here is the zip as it would be handed in, and instructors check it with the same
functions. Nothing in a hand-in is trusted: its files are only read, within limits, and its code runs in a sandbox.
"""

import json
import os
import re
import shutil
import stat
import sys
import tempfile
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np

import report
import sandbox
from datasets import TestDataset
from download import members
from evaluation import scale_of
from notebook import LONGEST, digest
from utils import Parser, Table, pixels_of, psnr, read_picture, save_picture, ssim, to_rgb, write_whole

# What was looked at, "ok", "note" or "problem", and a sentence.
Finding = namedtuple("Finding", "what verdict text")

KIT = Path(__file__).resolve().parent
NOTEBOOKS = ["train.ipynb", "test.ipynb", "super_resolution.ipynb"]
NEEDED = ["models.py", "solver.py", *NOTEBOOKS, report.FILE]
RESULT = Path("results", "handin")  # the pictures to be graded, <set>/<picture>.png, and result.json
MODEL_FILES = {".pt", ".pth", ".ckpt", ".safetensors", ".onnx", ".h5", ".keras", ".pkl", ".pickle", ".pdparams", ".bin",
               ".npz", ".npy", ".tar", ".gguf"}
LARGEST_FILE, LARGEST, MOST_FILES, DEEPEST = 20, 100, 2000, 20  # megabytes, megabytes unpacked, files, folders
_TOO_LARGE = f"{{}}: has more than {MOST_FILES} files or {LARGEST} MB in it; was it made by handin.py?"
MOST_CELLS = 1000
PSNR_TOLERANCE, SSIM_TOLERANCE = 0.02, 5e-4  # another machine rounds otherwise


# ------------------------------------------------------------------------------------ what is handed in


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


def collected(folder="."):
    """The files of a student's folder that are handed in, as paths relative to it."""
    folder = Path(folder)
    patterns = ["*.py", "*.ipynb", report.FILE, f"{report.PICTURES}/*.png", f"{RESULT.as_posix()}/**/*.png",
                f"{RESULT.as_posix()}/result.json", "results/scores.csv", "results/table.txt", "results/cells.jsonl",
                "runs/*/settings.json", "runs/*/history.csv"]
    files = {path.relative_to(folder) for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return sorted(files, key=lambda path: path.as_posix())


def make_zip(folder, path):
    """Write the zip of what is handed in."""
    with write_whole(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in collected(folder):
            archive.write(Path(folder, file), file.as_posix())


class Refused(ValueError):
    """A hand-in that is not looked into."""


def opened(handin, target):
    """Copy the files of a hand-in, a zip or a folder, into the new folder `target`; gives the folder with models.py.

    Nothing is written outside `target`. Raises Refused for what is neither, for a damaged zip, one that leads out of
    its folder or has links in it, and for one that is too large.
    """
    handin, target = Path(handin), Path(target)
    target.mkdir(parents=True)
    try:
        if handin.is_dir():
            _copy_folder(handin, target)
        elif zipfile.is_zipfile(handin):
            _unpack(handin, target)
        else:
            raise Refused(f"{plain(handin.name)}: is neither a folder nor a zip")
    except Refused:
        sandbox.remove(target)
        raise
    except Exception as error:  # of all that can be wrong with a stranger's files, nothing may come through
        sandbox.remove(target)
        raise Refused(f"{plain(handin.name)}: cannot be unpacked ({plain(error)[:200]})") from error
    return root_of(target)


def root_of(folder):
    """The folder with models.py that is least deep in a folder; the folder itself where there is none."""
    inner = sorted(Path(folder).rglob("models.py"), key=lambda path: (len(path.parts), str(path)))
    return inner[0].parent if inner else Path(folder)


def _copy_folder(folder, target):
    """Copy the plain files of a folder, no links."""
    room, left = LARGEST * 2**20, MOST_FILES
    for place, _, names in os.walk(folder):  # (which does not follow links)
        inside = Path(place).relative_to(folder)
        if len(inside.parts) > DEEPEST:
            raise Refused(f"{plain(folder.name)}: has folders in folders in it, more than {DEEPEST} deep")
        for name in names:
            path = Path(place, name)
            about = path.lstat()
            if not stat.S_ISREG(about.st_mode):
                continue
            room, left = room - about.st_size, left - 1
            if room < 0 or left < 0:
                raise Refused(_TOO_LARGE.format(plain(folder.name)))
            (target / inside).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / inside / name)


def _unpack(path, target):
    """Unpack a zip within limits, all names looked at before the first file is written."""
    name = plain(path.name)
    with zipfile.ZipFile(path) as archive:
        if any(item.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for item in archive.infolist()):
            raise Refused(f"{name}: is compressed in an unusual way; make it with python handin.py zip")
    with members(path) as entries:
        for inside, _, problem, _ in entries:
            if problem:
                raise Refused(f"{name}: refused, because it contains {plain(inside)[:100]!r}, {problem}")
        if len(entries) > MOST_FILES or sum(size for _, size, _, _ in entries) > LARGEST * 2**20:
            raise Refused(_TOO_LARGE.format(name))
        for inside, _, _, read in entries:  # (no more comes out than the size that it says)
            copy = target / inside
            copy.parent.mkdir(parents=True, exist_ok=True)
            with read() as source, open(copy, "wb") as file:
                shutil.copyfileobj(source, file, 2**20)


# ------------------------------------------------------------------------------------------- the check


def check(handin, lists="data/lists", scratch=None, trusted=False, seconds=120):
    """Look through a hand-in.

    Parameters
    ----------
    handin : path
        A zip or a folder.
    lists : path
        Folder with the list of the graded set.
    scratch : path, optional
        A new folder for a copy of its files, which stays; else a temporary one.
    trusted : bool
        The code is one's own, see `sandbox.run`.
    seconds : int
        How long its code may run.

    Returns
    -------
    findings : list of Finding
    scores : dict
        `psnr` and `ssim`, means over its pictures as measured here, where all are there.

    Raises FileNotFoundError for a hand-in that is not there, and OSError where its code cannot be kept in.
    """
    if not Path(handin).exists():
        raise FileNotFoundError(f"{handin}: there is no such file or folder")
    temporary = tempfile.mkdtemp()
    try:
        try:
            root = opened(handin, scratch or Path(temporary, "handin"))
        except Refused as error:
            return [Finding("the file", "problem", str(error))], {}
        findings, scores = [*_guarded("files", check_files, root), *_guarded("notebooks", check_notebooks, root)], {}
        try:
            found, scores = check_pictures(root, lists)
            findings += found
        except Exception as error:
            findings.append(_problem("pictures", error))
        findings += _guarded("report", check_report, root)
        if (root / "models.py").is_file():
            findings += check_code(root, Path(temporary, "kit"), trusted, seconds)
    finally:
        sandbox.remove(temporary)
    return findings, scores


def _guarded(what, look, root):
    """What a look at a part finds; a problem where it fails, whatever the files are."""
    try:
        return look(root)
    except Exception as error:
        return [_problem(what, error)]


def _problem(what, error):
    kind = "" if isinstance(error, (ValueError, OSError)) else f"cannot be read ({type(error).__name__}): "
    return Finding(what, "problem", plain(f"{kind}{error}")[:300])


def check_files(root):
    """Whether all is there that is needed, and nothing that is not wanted."""
    findings = [Finding("files", "problem", f"{name} is missing") for name in NEEDED if not (root / name).is_file()]
    for path in sorted(root.rglob("*")):
        name = plain(path.relative_to(root))
        if path.is_file() and (path.suffix.lower() in MODEL_FILES or _is_model(path)):
            findings.append(Finding("files", "problem", f"{name} is a model file; these are not handed in"))
        elif path.is_file() and path.stat().st_size > LARGEST_FILE * 2**20:
            findings.append(Finding("files", "problem", f"{name} has {path.stat().st_size / 2**20:.0f} MB; no file "
                                                        f"needs more than {LARGEST_FILE}"))
    return findings or [Finding("files", "ok", "all there, and no model file")]


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


def check_notebooks(root):
    """Whether the notebooks were executed from top to bottom, without an error, and not changed afterwards."""
    findings, executed = [], _executed_cells(root / "results" / "cells.jsonl")
    for name in NOTEBOOKS:
        if (root / name).is_file():
            wrong = _wrong_with_notebook(root / name, executed)
            verdict = "note" if wrong and wrong.startswith("it cannot") else "problem" if wrong else "ok"
            findings.append(Finding(name, verdict, wrong or "executed from top to bottom, as it stands"))
    return findings


def _wrong_with_notebook(path, executed):
    try:
        cells = _code_cells(path)
    except ValueError as error:
        return str(error)
    again = "restart the kernel, run all cells, and save"
    bad = next((output for _, _, outputs in cells for output in outputs if output.get("output_type") == "error"), None)
    if bad:
        error = f"{bad.get('ename', 'an error')}: {bad.get('evalue', '')}"
        return f"a cell ended with {plain(error)[:120]}; {again}"
    counts = [count for _, count, _ in cells]
    if not cells or all(count is None for count in counts):
        return f"it was not executed; {again}"
    if counts != list(range(1, len(counts) + 1)):
        return f"its cells were not executed once each from top to bottom (they are numbered {_few(counts)}); {again}"
    if not any(outputs for _, _, outputs in cells):
        return f"its outputs were removed; {again}"
    if not executed:
        return "it cannot be told whether it was changed afterwards: results/cells.jsonl is missing"
    wanted = [(count, digest(source)) for source, count, _ in cells]
    noted = {one for kernel in executed.values() for one in kernel.items()}
    if not noted & set(wanted[1:] or wanted):
        return "it cannot be told whether it was changed afterwards: results/cells.jsonl knows nothing of it; " + again
    fewest = min(([count for count, digest in wanted if kernel.get(count, digest) != digest]
                  + [count for count, _ in wanted[1:] if count not in kernel] for kernel in executed.values()), key=len)
    if fewest:
        return f"it was changed after it had been executed, for example in cell [{fewest[0]}]; {again}"
    return None


def _code_cells(path):
    """The code cells of a notebook that are not empty: (source, number of execution, outputs)."""
    if path.stat().st_size > LARGEST_FILE * 2**20:
        raise ValueError(f"it has {path.stat().st_size / 2**20:.0f} MB; show smaller pictures")
    try:
        cells = json.loads(path.read_bytes())["cells"]
        code = [("".join(cell["source"]), cell.get("execution_count"), cell.get("outputs", []))
                for cell in cells if cell["cell_type"] == "code"]
        usual = all(type(count) in (int, type(None)) and all(isinstance(output, dict) for output in outputs)
                    for _, count, outputs in code)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("it is not a notebook") from error
    if not usual or len(code) > MOST_CELLS:
        raise ValueError("it is not a notebook as Jupyter writes it")
    return [cell for cell in code if cell[0].strip()]


def _executed_cells(path):
    """What `notebook.set_up` has noted: kernel → {number of execution → digest of the source}."""
    executed = {}
    if path.is_file() and path.stat().st_size <= 2 * LONGEST:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
                executed.setdefault(str(row["kernel"]), {})[int(row["count"])] = str(row["source"])
            except (ValueError, LookupError, TypeError, RecursionError):
                continue  # the line that was being written when the power went
    return executed


def check_pictures(root, lists):
    """Whether the graded pictures are there and of the right size, and whether test.ipynb says what they score."""
    try:
        said = json.loads((root / RESULT / "result.json").read_bytes())
        graded, method = str(said["set"]), str(said["method"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{RESULT.as_posix()}/result.json is missing or damaged; run super_resolution.ipynb to its "
                         f"end") from error
    csv_file = Path(lists, f"{graded}.csv")
    if not re.fullmatch(r"\w+", graded) or not csv_file.is_file():
        raise ValueError(f"its pictures are of the set {plain(graded)!r}, of which there is no list in {lists}")
    findings, scores = [], []
    for pair in TestDataset(csv_file, 4):
        path, (height, width) = root / RESULT / graded / f"{pair.name}.png", pair.hr.shape[:2]
        try:
            if path.is_file() and pixels_of(path) > 4 * height * width:
                raise ValueError(f"is far larger than {width}×{height}")
            picture = read_picture(path)
            if picture.shape[:2] != (height, width):
                raise ValueError(f"is {picture.shape[1]}×{picture.shape[0]}, and should be {width}×{height}")
            if picture.ndim != pair.hr.ndim:  # a grey one saved as RGB, or the other way round
                picture = picture[..., 0] if picture.ndim == 3 else to_rgb(picture)
            scores.append((psnr(picture, pair.hr), ssim(picture, pair.hr)))
        except FileNotFoundError:
            findings.append(Finding("pictures", "problem", f"{graded}/{pair.name}.png is missing"))
        except ValueError as error:
            findings.append(Finding("pictures", "problem",
                                    f"{graded}/{pair.name}.png: {plain(str(error).rpartition(': ')[2])}"))
    if findings:
        return findings, {}
    measured = tuple(np.mean(scores, axis=0).tolist())
    text = f"{graded}: {measured[0]:.2f} dB / {measured[1]:.4f}, measured from the pictures"
    shown = _shown_scores(root / "test.ipynb", graded, method)
    if shown is None:
        verdict = Finding("scores", "problem", f"{text}; test.ipynb shows no table with {graded} and "
                                               f"{plain(method)!r}")
    elif not (abs(shown[0] - measured[0]) <= PSNR_TOLERANCE and abs(shown[1] - measured[1]) <= SSIM_TOLERANCE):
        verdict = Finding("scores", "problem", f"{text}, but test.ipynb says {shown[0]:.2f} / {shown[1]:.4f} for "
                                               f"{plain(method)!r}; run both notebooks again with the same run")
    else:
        verdict = Finding("scores", "ok", f"{text}, as in test.ipynb")
    if graded != "Set5":
        findings.append(Finding("pictures", "note", f"they are of {graded}, and it is Set5 that is graded; to get it: "
                                                    f"python create_data_lists.py --download benchmarks --data data"))
    if method == "bicubic":
        findings.append(Finding("pictures", "problem", "they are bicubic interpolation, and no network's; choose "
                                                       "another MINE in super_resolution.ipynb"))
    made = f"all {len(scores)} of {graded}, by {plain(method)!r} of the run {plain(said.get('run'))!r}"
    return [*findings, Finding("pictures", "ok", made), verdict], dict(
        zip(("psnr", "ssim"), measured))


def _shown_scores(path, graded, method):
    """PSNR and SSIM of a method on a set as the table in an executed notebook has them, or None."""
    try:
        cells = _code_cells(path)
    except (ValueError, OSError):
        return None
    for text in (_text_of(output) for _, _, outputs in cells for output in outputs):
        header, *lines = text.splitlines() or [""]
        columns = re.split(r"\s{2,}", header.strip())
        place = next((i for i, name in enumerate(columns) if name.startswith(f"{graded} (")), None)
        for row in (re.split(r"\s{2,}", line.strip()) for line in lines if place):
            if row[0] == method and len(row) > place:
                try:
                    return tuple(map(float, row[place].split("/")[:2]))
                except ValueError:
                    return None
    return None


def _text_of(output):
    data = output.get("data", {})
    text = data.get("text/plain", "") if isinstance(data, dict) else ""
    return "".join(text) if isinstance(text, (str, list)) else ""


def check_report(root):
    """Whether the report is there, in the student's own words, and names its sources."""
    if not (root / report.FILE).is_file():
        return []  # said already
    if (root / report.FILE).stat().st_size > 2**20:
        return [Finding("report", "problem", "it has more than 1 MB of text")]
    missing = report.unwritten(root / report.FILE)
    return ([Finding("report", "problem", text) for text in missing]
            or [Finding("report", "ok", "written, with its sources")])


def check_code(root, kit, trusted, seconds):
    """Whether its networks and its training work: the tests of networks and a few updates, in a sandbox."""
    kit.mkdir(parents=True)
    for file in KIT.glob("*.py"):
        shutil.copyfile(file, kit / file.name)
    for file in sorted(root.glob("*.py")):  # over the kit's own, but not over what tries them
        if file.name not in ("sandbox.py", "trial.py", "conftest.py"):
            shutil.copyfile(file, kit / file.name)
    shutil.copytree(KIT / "tests", kit / "tests", ignore=lambda _, names: [
        name for name in names if name not in ("conftest.py", "test_models.py")])
    outcome = sandbox.run(kit / "trial.py", [], kit, seconds, trusted=trusted)
    tried = [Finding("code", "problem", f"it tried what no training needs: {plain(attempt)}")
             for attempt in outcome.attempts[:3]]
    results = _read_trial(sandbox.read_left(kit, "trial.json"))
    last = outcome.output.strip().splitlines()[-1:] or [""]
    limits = {"time": f"did not end within {seconds} seconds", "memory": "took more memory than there is for it",
              "disk": f"wrote more than {sandbox.DISK} MB or {sandbox.MOST_FILES} files",
              "threads": f"started more than {sandbox.MOST_THREADS} threads"}
    ended = limits.get(outcome.reason) or (
        None if {"networks", "training"} <= results.keys() or "error" in results.get("modules", {})
        else f"ended on its own, with status {outcome.status} ({plain(last[0])[:200]})")
    findings = []
    if "error" in results.get("modules", {}):
        findings.append(Finding("code", "problem", f"it cannot be imported: {results['modules']['error']}"))
    findings += _on_networks(results.get("networks"))
    training = results.get("training", {})
    if "error" in training:
        findings.append(Finding("training", "problem", f"a training of a few updates failed: {training['error']}"))
    elif training.get("phases"):
        findings.append(Finding("training", "ok", f"a few updates of {', '.join(training['phases'])} ran"))
    if ended:
        findings.append(Finding("code", "problem", f"it {ended}"))
    return [*findings, *tried]


def _read_trial(content):
    """What the trial wrote, as far as it has the right form; everything in it may be forged."""
    try:
        content, results = json.loads(content), {}
        for part in ("modules", "networks", "training"):
            if part in content:
                given = content[part]
                results[part] = {"error": plain(given["error"])[:400]} if "error" in given else {}
                if part == "networks" and "tests" in given:
                    results[part] = {"tests": [
                        {"test": plain(row["test"])[:100], "paper": row["paper"] is True,
                         "outcome": str(row["outcome"]), "why": plain(row["why"])[:300]}
                        for row in given["tests"][:200]]}
                if part == "training" and "phases" in given:
                    results[part] = {"phases": [plain(name)[:50] for name in given["phases"][:20]]}
        return results
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _on_networks(networks):
    if not networks or not networks.get("tests", ["error"]):
        return [Finding("networks", "problem", "none of their tests was run")]
    if "error" in networks:
        return [Finding("networks", "problem", networks["error"])]
    failed = [row for row in networks["tests"] if row["outcome"] == "failed"]
    passed = sum(row["outcome"] == "passed" for row in networks["tests"])
    reasons = {}  # a function that is missing fails many tests
    for row in failed:
        reasons.setdefault((row["why"], row["paper"]), []).append(row["test"].removeprefix("test_").replace("_", " "))
    findings = [Finding("networks", "note" if paper else "problem", f"{why or 'not so'}: {names[0]}"
                        + (f", and {len(names) - 1} more" if len(names) > 1 else ""))
                for (why, paper), names in reasons.items()]
    text = f"{passed} of {len(networks['tests'])} tests passed"
    if any(row["paper"] for row in failed):
        text += " (a note is about what the paper has otherwise)"
    return [*findings, Finding("networks", "note" if failed else "ok", text)]


def table(findings):
    """The findings as a table."""
    marks = {"ok": "✓", "note": "–", "problem": "✗"}
    return Table([[marks[one.verdict], one.what, one.text] for one in findings], ["", "what", "finding"], left=3)


def is_complete(findings):
    return not any(one.verdict == "problem" for one in findings)


def _few(counts):
    return ", ".join("–" if count is None else str(count) for count in counts[:8]) + (", …" if len(counts) > 8 else "")


def plain(text):
    """A text from a stranger without what could steer a terminal or cannot be written to a file."""
    return "".join(letter if letter.isprintable() else "�" for letter in re.sub(r"\x1b\[[\d;]*m", "", str(text)))


# ---------------------------------------------------------------------------------------- command line


def main(arguments=None):
    parser = Parser(description="Check what you are going to hand in, and make the zip.")
    commands = parser.add_subparsers(dest="command", required=True)
    look = commands.add_parser("check", help="what is missing; ends with 1 when something is")
    look.add_argument("handin", nargs="?", help="a zip or folder; without it, what `zip` would put into one")
    pack = commands.add_parser("zip", help="make the zip, if nothing is missing")
    pack.add_argument("name", help="what your course wants it to be called, such as your number")
    for command in (look, pack):
        command.add_argument("--lists", default="data/lists", metavar="DIR", help="default: %(default)s")
    look.add_argument("--json", metavar="FILE", help="write what was found to a file, too")
    options = parser.parse_args(arguments)
    if options.command == "zip" and not re.fullmatch(r"\w[\w.-]*", options.name):
        parser.error(f"the name must be a word of letters, digits, '_', '-' and '.', not {options.name!r}")
    try:
        with tempfile.TemporaryDirectory() as temporary:
            handin = getattr(options, "handin", None)
            if handin is None:
                make_zip(".", Path(temporary, "handin.zip"))
            findings, scores = check(handin or Path(temporary, "handin.zip"), options.lists, trusted=handin is None)
            print(table(findings))
            if getattr(options, "json", None):
                with write_whole(options.json) as file:
                    file.write_text(json.dumps(as_dict(findings, scores), indent=1), encoding="utf-8")
            if not is_complete(findings):
                sys.exit("\nNot complete yet: see ✗ above")
            if options.command == "zip":
                with write_whole(f"{options.name}.zip") as file:
                    shutil.copyfile(Path(temporary, "handin.zip"), file)
                size = Path(f"{options.name}.zip").stat().st_size / 1e6
                print(f"\n{options.name}.zip ({size:.1f} MB): hand in this file")
            else:
                print("\nComplete" + ("" if handin else ": python handin.py zip NUMBER makes the zip"))
    except (ValueError, OSError) as error:
        sys.exit(f"handin.py: error: {error}")


def as_dict(findings, scores):
    """Findings and scores for a JSON file."""
    return {"complete": is_complete(findings), **scores, "findings": [one._asdict() for one in findings]}


if __name__ == "__main__":
    main()
