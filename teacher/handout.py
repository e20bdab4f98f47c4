"""The student edition: the kit without its solution, made from the kit itself.

What a student is to write stands between marks in the source, which are the field's own (nbgrader's, otter's):

    # BEGIN SOLUTION              replaced by `raise NotImplementedError`
    # BEGIN SOLUTION NO PROMPT    left out
    # END SOLUTION
    # BEGIN PROMPT                lines that only the student edition has, commented out here
    # END PROMPT

The notebooks are made from `teacher/handout/<name>.md`, where <!-- kit: … --> stands for the cell of the kit's notebook
that begins with these words; the two READMEs are there as well, and get their facts from the kit.

In Chinese the edition is the same but for its prose, see `teacher/translation.py`: code is the same in both.
"""

import json
import re
import shutil
import zipfile
from functools import partial
from pathlib import Path

import nbformat

import models
from kit.files import KIT, patiently, write_whole
from kit.handin import contents as handin
from kit.handin.opening import LARGEST
from kit.handin.pictures import PSNR_TOLERANCE
from kit.handin.report import PEN, SECTIONS
from kit.language import LANGUAGES
from kit.settings.recipes import RECIPES, settings
from teacher import prose
from teacher.course import told

HOME = KIT.parent  # of the whole kit
TEMPLATES = Path(__file__).with_name("handout")
BEGIN = re.compile(r"^([ \t]*)# BEGIN (SOLUTION|SOLUTION NO PROMPT|PROMPT)$")
STUB = 'raise NotImplementedError("{}: yours to write")  # YOUR CODE HERE'

# What students get beside the six modules, the notebooks and kit/; to be cut where it has marks.
FILES = ["Makefile", "requirements.txt", "pyproject.toml", "LICENSE", ".gitignore",
         "tests/test_models.py"]
# Python whose docstrings and comments are translated; of the notebooks all prose is.
IN_OTHER_LANGUAGES = ["models.py", "solver.py", "tests/test_models.py"]
# What of kit/ they do not get.
LEFT_OUT = ["kit/tools/benchmark.py", "kit/tools/benchmark_threads.py", "kit/tools/compare_recipes.py",
            "kit/tools/gpu.py", "kit/tools/reference.py",
            "kit/lessons/failures.py",  # (what keeps a training from failing is theirs to find)
            "kit/evaluation/msrresnet.py"]  # (as is how a generator is built)


def make(out, home=HOME, course=None, language="en"):
    """Write the student edition to a new folder, or to a zip if `out` ends in .zip; gives the names of its files.

    `course` is a `teacher.course.Course`, whose deadline and marks its READMEs then say; `language` is "en" or "zh".

    Raises FileExistsError for a folder that is there already, and ValueError for marks that do not fit together.
    """
    out = Path(out)
    files = contents(home, course, language, folder=out.stem if out.suffix == ".zip" else out.name)
    if out.suffix == ".zip":
        with write_whole(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in files.items():
                archive.writestr(f"{out.stem}/{name}", text)
    else:
        if out.exists():
            raise FileExistsError(f"{out} is there already; remove it, or choose another place with --out")
        work = out.with_name(f".{out.name}.part")
        shutil.rmtree(work, ignore_errors=True)
        for name, text in files.items():
            path = work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        patiently(work.rename, out)
    return list(files)


def contents(home=HOME, course=None, language="en", translate=None, folder="handout"):
    """The files of the student edition: name → text, or bytes of what is no text.

    `translate(text, name)` is a function from a piece of prose in the file of that name to its translation, instead of
    the catalogue's; `folder` is what the READMEs call the folder of it all.
    """
    files, home = {}, Path(home)
    if translate is None:
        catalogue = prose.translator(language)
        def translate(text, name):
            return catalogue(text)
    machinery = [path.relative_to(home).as_posix() for path in (home / "kit").rglob("*")
                 if path.suffix in (".py", ".csv", ".html")]
    modules = sorted(path.name for path in home.glob("*.py") if not path.name.startswith("."))
    for name in [*modules, *sorted(set(machinery) - set(LEFT_OUT)), *FILES]:
        files[name] = cut((home / name).read_text(encoding="utf-8"), name)[0]
    for name in IN_OTHER_LANGUAGES:
        files[name] = prose.python(files[name], partial(translate, name=name))
    for name in handin.NOTEBOOKS:
        files[name] = _notebook(home / name, TEMPLATES / f"{Path(name).stem}.md", partial(translate, name=name))
    digests = {name.removeprefix("kit/"): handin.text_digest(text) for name, text in files.items()
               if name.startswith("kit/") and name.endswith(".py")}
    files[f"kit/{handin.HANDED_OUT}"] = json.dumps(digests, indent=1) + "\n"
    for path in sorted((home / "kit" / "locale").rglob("*.mo")):
        files[path.relative_to(home).as_posix()] = path.read_bytes()
    files["kit/locale/language.txt"] = language + "\n"
    facts = {**_facts(files), **told(course), "folder": folder}
    for each in LANGUAGES:
        facts["other"] = _readme(LANGUAGES[each == LANGUAGES[0]], language)
        text = (TEMPLATES / f"README.{each}.md").read_text(encoding="utf-8")
        files[_readme(each, language)] = re.sub(
            r"\{(\w+)\}", lambda found, facts=dict(facts), each=each: _fact(facts, found[1], each), text)
    return files


def _readme(language, of_edition):
    """What the README in a language is called in an edition of a language."""
    return "README.md" if language == of_edition else f"README.{language}.md"


# ------------------------------------------------------------------------------------------------- marks


def cut(text, name="text"):
    """A source without its solution, and the pieces that were taken out, in their order: (text, list of (new, old)).

    Putting `old` back in the place of each `new` gives the source again, byte for byte. Raises ValueError for a mark
    without its end, or an end without its mark.
    """
    kept, pieces, block, kind, indent = [], [], None, None, ""
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        begin = BEGIN.match(line.rstrip("\r\n"))
        ends = kind and line.strip() == f"# END {kind.split()[0]}"
        if begin and kind or not ends and line.strip() in ("# END SOLUTION", "# END PROMPT"):
            raise ValueError(f"{name}, line {number}: {line.strip()!r} does not fit the mark before it")
        if begin:
            indent, kind = begin[1], begin[2]
            block, new = [line], ""
        elif ends:
            block.append(line)
            if kind == "SOLUTION":
                new = indent + STUB.format(_place("".join(kept), indent)) + "\n"
            elif kind == "PROMPT":
                new = "".join(re.sub(r"^(\s*)# ?", r"\1", inner) for inner in block[1:-1])
            kept.append(new)
            pieces.append((new, "".join(block)))
            kind = None
        elif kind:
            block.append(line)
        else:
            kept.append(line)
    if kind:
        raise ValueError(f"{name}: # BEGIN {kind} has no end")
    return "".join(kept), pieces


def _place(text, inside):
    """What is being defined at the end of a piece of source, for a line indented by `inside`: "Generator.forward"."""
    names = []
    for indent, name in reversed(re.findall(r"^( *)(?:def|class) (\w+)", text, flags=re.MULTILINE)):
        if len(indent) < (names[0][0] if names else len(inside)):
            names.insert(0, (len(indent), name))
        if not indent:
            break
    return ".".join(name for _, name in names)


# --------------------------------------------------------------------------------------------- notebooks


def _notebook(path, template, translate):
    """A notebook of the student edition, as JSON: the template's texts and cells, and those of the kit's it names.

    Its prose, comments too, is put through `translate`.
    """
    kit = nbformat.read(path, as_version=4)
    cells = []
    for part in re.split(r"(?m)^(<!-- kit: .*? -->|```python\n.*?^```)$|^(?=## )", template.read_text(encoding="utf-8"),
                         flags=re.DOTALL):
        part = part or ""
        if part.startswith("<!-- kit: "):
            begin = part[len("<!-- kit: "):-len(" -->")]
            found = [cell for cell in kit.cells if cell.source.startswith(begin)]
            if len(found) != 1:
                raise ValueError(f"{template}: {len(found)} cells of {path.name} begin with {begin!r}")
            new = nbformat.v4.new_code_cell if found[0].cell_type == "code" else nbformat.v4.new_markdown_cell
            tags = found[0].metadata.get("tags")
            cells.append(new(found[0].source, metadata={"tags": tags} if tags else {}))
        elif part.startswith("```python\n"):
            cells.append(nbformat.v4.new_code_cell(part[len("```python\n"):-len("```")].rstrip("\n")))
        elif part.strip():
            cells.append(nbformat.v4.new_markdown_cell(part.strip()))
    number = 0
    for position, cell in enumerate(cells):
        cell.id = f"cell-{position}"
        cell.source = (prose.markdown if cell.cell_type == "markdown" else prose.python)(cell.source, translate)
        if cell.cell_type == "markdown" and re.match(r"## (\d+  )?", cell.source):
            number += 1
            cell.source = re.sub(r"^## (\d+  )?", f"## {number}  ", cell.source)
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kit.metadata.get("kernelspec", {
        "display_name": "Python 3", "language": "python", "name": "python3"})})
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


# ----------------------------------------------------------------------------------------------- READMEs


def _facts(files):
    """What both READMEs say, from the kit itself: name → text, or {"en": …, "zh": …}."""
    paper = settings("paper")
    tasks = {name: re.findall(r'NotImplementedError\("([\w.]+): ', text) for name, text in files.items()
             if isinstance(text, str)}
    sizes = [sum(p.numel() for p in make(paper).parameters())
             for make in (models.make_generator, models.make_discriminator)]
    listed = {language: separator.join(words[language][0] for words in SECTIONS.values())
              for language, separator in (("en", "; "), ("zh", "；"))}
    bodies = [f"`{body}`" for name in tasks for body in dict.fromkeys(tasks[name])]
    return {"generator": f"{sizes[0]:,}", "discriminator": f"{sizes[1]:,}", "sections": listed,
            "bodies": {"en": ", ".join(bodies), "zh": "、".join(bodies)},
            "largest_file": str(handin.LARGEST_FILE), "largest": str(LARGEST),
            "needed": {"en": ", ".join(f"`{name}`" for name in handin.NEEDED),
                       "zh": "、".join(f"`{name}`" for name in handin.NEEDED)}, "pen": PEN,
            "result": f"`{handin.RESULT.as_posix()}/`", "psnr_tolerance": str(PSNR_TOLERANCE),
            "epochs": str(RECIPES["demo"]["adversarial_epochs"])}


def _fact(facts, name, language):
    if name not in facts:
        raise ValueError(f"teacher/handout/README.{language}.md asks for {{{name}}}, which is none of "
                         f"{', '.join(facts)}")
    return facts[name] if isinstance(facts[name], str) else facts[name][language]
