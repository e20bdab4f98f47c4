"""Pairs of hand-ins worth a look: nearly the same code after names and comments are taken out, or the same pictures.

Code is compared by the fingerprints of Schleimer, Wilkerson and Aiken ("Winnowing", SIGMOD 2003), the method of MOSS;
of what was handed out nothing counts. Pictures are compared by `teacher.copies`. The kit's own solution, its reference
pictures and the originals take part as if handed in. What is found is a hint for a person who looks at both, and never
a verdict.
"""

import difflib
import io
import json
import keyword
import tokenize
import zlib
from collections import namedtuple
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import torch

from datasets import TestDataset
from kit.console import Table
from kit.evaluation.generators import load_generators
from kit.evaluation.measure import methods
from kit.files import write_csv
from kit.handin.contents import NOTEBOOKS, RESULT, own_code
from kit.handin.findings import sanitize
from kit.handin.opening import root_of
from kit.handin.texts import text_of
from kit.settings.describe import ELSEWHERE
from teacher import handout
from teacher.copies import alike
from teacher.pages import image, text, write_page
from teacher.rating import ORIGINAL, find_pictures, picture_in
from utils import read_picture

# Two hand-ins: which share of the shorter one's own code is in the other, too; the pictures that are alike, with their
# correlation; and whether the same settings and seed trained both, which makes pictures alike that nobody copied.
Pair = namedtuple("Pair", "first second code pictures same_settings", defaults=[False])

SOLUTION, REFERENCE = "(the kit's solution)", "(reference {})"
TOKENS, WINDOW = 10, 4  # of a fingerprint, and of fingerprints of which one is kept
FEWEST = 15  # fingerprints; less is too little to say anything


def find(folder, csv_file="data/lists/Set5.csv", share=0.6, weights="weights"):
    """The pairs of hand-ins that are worth a look, the most similar first, as a list of Pair.

    Parameters
    ----------
    folder : path
        With a folder for each hand-in, such as the `handins/` that `check` makes.
    csv_file : path
        The list of the graded set.
    share : float
        From which share of common code on a pair is listed.
    weights : path
        The kit's reference generators, whose pictures take part.
    """
    sources = {path.name: code_of(path) for path in sorted(Path(folder).iterdir()) if path.is_dir()}
    if not sources:
        raise ValueError(f"{folder}: has no folder in it; put each hand-in into one")
    kit = {name: (handout.HOME / name).read_text(encoding="utf-8") for name in ("models.py", "solver.py")}
    given = set().union(*(fingerprints(text) for text in _given().values()))
    marks = {name: set().union(*map(fingerprints, files.values()), set()) - given
             for name, files in {**sources, SOLUTION: kit}.items()}
    pairs = list(TestDataset(csv_file, 4)) if Path(csv_file).is_file() else []
    pictures = _pictures(folder, sources, pairs, Path(csv_file).stem, weights)
    same = alike(pictures, pairs, ORIGINAL)
    trained = {name: _settings_of(Path(folder, name)) for name in sources}
    found = []
    for first, second in combinations([*sources, *(name for name in [SOLUTION, *pictures, ORIGINAL]
                                                   if name not in sources)], 2):
        if first not in sources:
            continue  # both are the kit's
        smaller = min(len(marks.get(first, ())), len(marks.get(second, ())))
        common = len(marks[first] & marks[second]) / smaller if smaller >= FEWEST else 0.0
        if common >= share or (first, second) in same:
            found.append(Pair(first, second, common, same.get((first, second), {}),
                              trained.get(first) is not None and trained.get(first) == trained.get(second)))
    return sorted(found, key=lambda pair: (-len(pair.pictures), -pair.code, pair.first, pair.second))


@lru_cache(1)
def _given():
    """The code that was handed out."""
    files = {name: text for name, text in handout.contents().items() if name.endswith((".py", ".ipynb"))}
    return {name: notebook_code(text) if name.endswith(".ipynb") else text for name, text in files.items()}


def code_of(folder):
    """The code of a hand-in: name of the file → source, of notebooks that of their code cells."""
    files, root = {}, root_of(folder)
    for name in [*own_code(root), *map(Path, NOTEBOOKS)]:
        path = root / name
        if path.is_file() and path.stat().st_size < 20 * 2**20:
            try:
                text = text_of(path)
            except ValueError as error:
                print(f"{sanitize(Path(folder).name)}: {error}; not compared")
                continue
            files[name.as_posix()] = notebook_code(text) if path.suffix == ".ipynb" else text
    return files


def notebook_code(text):
    """The code cells of a notebook, one below the other; nothing for what is no notebook."""
    try:
        return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""


# ---------------------------------------------------------------------------------------------- compared


@lru_cache(1)
def _vocabulary():
    """The words that say what code does; all others are somebody's own names."""
    words = {*keyword.kwlist, *dir(__builtins__ if not isinstance(__builtins__, dict) else type("B", (), __builtins__))}
    for module in (torch, torch.nn, torch.nn.functional, torch.nn.init, torch.optim, torch.Tensor):
        words |= {word for word in dir(module) if not word.startswith("_")}
    return words


def fingerprints(source):
    """The fingerprints of a source without names, comments, texts and layout, as a set of numbers."""
    words = _vocabulary()
    tokens, statement = [], True
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.STRING and statement:
                continue  # a docstring
            statement = token.type in (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT,
                                       tokenize.COMMENT)
            if token.type == tokenize.NAME:
                tokens.append(token.string if token.string in words else "name")
            elif token.type in (tokenize.OP, tokenize.NUMBER):
                tokens.append(token.string)
            elif token.type == tokenize.STRING:
                tokens.append("text")
    except (tokenize.TokenError, SyntaxError, ValueError):
        pass  # what stands before it counts
    hashes = [zlib.crc32(" ".join(tokens[i:i + TOKENS]).encode()) for i in range(len(tokens) - TOKENS + 1)]
    return {min(hashes[i:i + WINDOW]) for i in range(max(len(hashes) - WINDOW + 1, min(len(hashes), 1)))}


def _pictures(folder, names, pairs, graded, weights):
    """The pictures of all hand-ins and of the references, name → picture → array."""
    pictures = {name: find_pictures(Path(folder, name), pairs, graded) for name in names} if pairs else {}
    files = {path.stem: path for path in sorted(Path(weights).glob("*.safetensors"))}
    if files and pairs:
        for name, enlarge in methods(load_generators(files)).items():
            pictures[REFERENCE.format(name)] = {pair.name: enlarge(pair.lr) for pair in pairs}
    return pictures


def _settings_of(folder):
    """The settings of each phase of the run that made a hand-in's graded pictures, as a text; None if not known."""
    root = root_of(folder)
    try:
        run = Path(json.loads((root / RESULT / "result.json").read_bytes())["run"]).name
        record = json.loads((root / "runs" / run / "settings.json").read_bytes())
        return json.dumps([[one["phase"], one["last_epoch"], sorted(
            (name, value) for name, value in one["settings"].items() if name not in ELSEWHERE)] for one in record])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


# ------------------------------------------------------------------------------------------------- shown


def pair_table(pairs):
    """The pairs as a table."""
    rows = [[pair.first, pair.second, f"{pair.code:.0%}", _told(pair)] for pair in pairs]
    return Table(rows, ["hand-in", "and", "common code", "pictures alike"], left=2)


def _told(pair):
    """Names of the pictures that are alike, with their correlation, and what may explain it."""
    named = ", ".join(f"{name} ({value:.2f})" for name, value in pair.pictures.items())
    return f"{named}; trained with the same settings and seed" if named and pair.same_settings else named


def save(pairs, folder, out, graded=None, most=50):
    """Write `similarity.csv` and `similarity.html`, which shows code and pictures of the first pairs side by side.

    `graded` is the name of the set that the pictures are of.
    """
    rows = [{"first": pair.first, "second": pair.second, "code": round(pair.code, 3),
             "pictures": _told(pair)} for pair in pairs]
    write_csv(Path(out, "similarity.csv"), rows, ["first", "second", "code", "pictures"],
              for_spreadsheets=True)
    parts = [_shown(pair, Path(folder), graded) for pair in pairs[:most]]
    told = ("Similar does not mean copied: look at both, and ask. Networks of one kind that were trained with the same "
            "settings and the same seed make the same pictures, whoever wrote them. White lines are the same in both, "
            "coloured ones differ.")
    body = f"<h1>Pairs worth a look</h1><p>{told}</p>" + ("\n".join(parts) or "<p>No pair is worth a look.</p>")
    write_page(Path(out, "similarity.html"), "Pairs worth a look", body, style=_STYLE)


_STYLE = """table.diff { font: 12px monospace; width: 100%; table-layout: fixed }
table.diff td { overflow-wrap: anywhere; white-space: pre-wrap; border: 0; padding: 0 2px }
td.diff_header, th.diff_next, td.diff_next { width: 2.5em; color: #888 } .diff_add { background: #dfd }
.diff_sub { background: #fdd } .diff_chg { background: #ffc }
col:nth-child(1), col:nth-child(4) { width: 1em } col:nth-child(2), col:nth-child(5) { width: 3em }
"""


def _can_be_compared(one, other):
    """Whether Python shows soon where lines differ: it compares each with each between two that are equal."""
    found = difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
    return sum((i2 - i1) * (j2 - j1) for kind, i1, i2, j1, j2 in found if kind == "replace") < 5_000


def _shown(pair, folder, graded):
    sources = [code_of(folder / name) if (folder / name).is_dir() else
               {file: (handout.HOME / file).read_text(encoding="utf-8") for file in ("models.py", "solver.py")}
               if name == SOLUTION else {} for name in pair[:2]]
    titles = [text(name) for name in pair[:2]]
    lines = [f"<h2>{titles[0]} and {titles[1]}</h2><p>{pair.code:.0%} of the code"
             + (f"; pictures: {text(_told(pair))}" if pair.pictures else "") + "</p>"]
    if pair.pictures:
        picture = max(pair.pictures, key=pair.pictures.get)
        shown = [image(read_picture(picture_in(folder / name, picture, graded)), f"{name}: {picture}")
                 for name in pair[:2] if (folder / name).is_dir()]
        lines.append(f'<div class="row">{"".join(shown)}</div>')
    if pair.code:
        differ = difflib.HtmlDiff(tabsize=4, wrapcolumn=70)
        for file in sorted(sources[0].keys() & sources[1].keys() & {"models.py", "solver.py", "train.ipynb"}):
            one, other = ([line[:300] for line in files[file].splitlines()[:1500]] for files in sources)
            shown = (differ.make_table(one, other, *titles, context=False) if _can_be_compared(one, other) else
                     "".join(f"<p>{title}</p><pre>{text(chr(10).join(part))}</pre>"
                             for title, part in zip(titles, (one, other))))
            lines.append(f"<details><summary>{file}</summary>{shown}</details>")
    return "\n".join(lines)
