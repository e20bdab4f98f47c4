"""The student edition in Chinese: nothing is left in English, and nothing but prose is another.

`python -m pytest -n0 -s tests/teacher/test_translation.py` prints how many sentences there are, how many in Chinese.
"""

import ast
import gettext
import io
import re
import tokenize

import nbformat
import pytest
from babel.messages.pofile import read_po
from matplotlib.text import Text
from warm import python

from helpers import ROOT
from kit.handin import report
from kit.handin.contents import NOTEBOOKS
from kit.language import LANGUAGES, speaking
from kit.plots import fonts
from teacher import handout, prose, translation

CHINESE = re.compile("[\u4e00-\u9fff]")
SENTENCE = re.compile(r"[.!?。！？](?=\s|$|[^\x00-\x7f])")
# What stays as it is in the middle of Chinese: code, links, formulas, numbers, names.
KEPT = re.compile(r"`[^`]*`|```.*?```|https?://\S+|\$[^$]*\$|\([^()]*\)\[|“[^”]*”|apt install \S+", re.DOTALL)
CODE = {"models.py", "solver.py", "tests/test_models.py"}
TOOLS = {"benchmark.py", "benchmark_threads.py", "compare_recipes.py", "gpu.py", "reference.py"}  # students lack these
TRANSLATED = sorted(path for path in [*ROOT.glob("*.py"), *(ROOT / "kit").rglob("*.py")] if path.name not in TOOLS)


@pytest.fixture(scope="module")
def editions():
    """The student edition in each language: language → name → text."""
    return {language: handout.contents(language=language) for language in LANGUAGES}


def catalogue(domain):
    with open(translation.file_of(domain, "zh", "po"), "rb") as file:
        return read_po(file, "zh")


def pieces(files):
    """All prose of an edition's notebooks and code, in its order: (name, text)."""
    found = []

    def note(name):
        return lambda text: found.append((name, text)) or text

    for name in sorted(CODE):
        prose.python(files[name], note(name))
    for name in NOTEBOOKS:
        for cell in nbformat.reads(files[name], as_version=4).cells:
            (prose.markdown if cell.cell_type == "markdown" else prose.python)(cell.source, note(name))
    return found


def english_left(text):
    """Runs of three or more English words in a text that should be Chinese."""
    return re.findall(r"(?<![\w.])[A-Za-z]{2,}(?: [a-z]{2,}){2,}", KEPT.sub(" ", text))


@pytest.mark.parametrize("domain", ["kit", "handout"])
def test_every_message_is_translated_and_none_is_left_over(domain):
    written = {message.id: message.string for message in catalogue(domain) if message.id}
    wanted = set(translation.messages(domain))
    again = "; run python -m teacher.translation, and write what is lacking into the .po file"
    assert not wanted - written.keys(), f"not in the catalogue: {sorted(wanted - written.keys())[:3]}{again}"
    assert not written.keys() - wanted, f"no longer in the sources: {sorted(written.keys() - wanted)[:3]}{again}"
    assert not [text for text, chinese in written.items() if not chinese.strip()]
    assert not [message.id for message in catalogue(domain) if message.fuzzy and message.id]


@pytest.mark.parametrize("domain", ["kit", "handout"])
def test_what_is_read_is_what_is_written(domain):
    with open(translation.file_of(domain, "zh", "mo"), "rb") as file:
        read = gettext.GNUTranslations(file)
    old = [message.id for message in catalogue(domain) if message.id and read.gettext(message.id) != message.string]
    assert not old, f"the .mo is old; run python -m teacher.translation: {old[:3]}"


@pytest.mark.parametrize("domain", ["kit", "handout"])
def test_figures_and_places_are_the_same_in_both_languages(domain):
    """Numbers, {places}, code and links of each message are those of the English one, in any order."""
    def facts(text):
        numbers = re.findall(r"\d[\d,]*(?:\.\d+)?", re.sub(r"\{[^}]*\}", "", text))
        return {number.rstrip(",.") for number in numbers} - set("12345678")  # (which either may write as words)

    for message in catalogue(domain):
        if message.id:
            assert sorted(re.findall(r"\{[^}]*\}", message.id)) == sorted(re.findall(r"\{[^}]*\}", message.string)), \
                message.id
            assert facts(message.id) == facts(message.string), message.id
            for kind in (r"`[^`\n]+`", r"https?://[^)\s]+", r"\$[^$]+\$"):
                assert set(re.findall(kind, message.id)) == set(re.findall(kind, message.string)), message.id


def test_everything_that_students_read_is_chinese(editions):
    english, chinese = pieces(editions["en"]), pieces(editions["zh"])
    assert len(english) == len(chinese)
    left = [text for _, text in chinese if not CHINESE.search(KEPT.sub("", text))]
    assert not left, left
    assert not [(text, english_left(text)) for _, text in chinese if english_left(text)]
    assert english_left(pieces(editions["en"])[0][1])  # (the rule bites)
    messages = [message for message in catalogue("kit") if message.id]
    # Names, and units that are written alike in both.
    assert not [message.string for message in messages if not CHINESE.search(message.string)]
    assert not [message.string for message in messages
                if english_left(re.sub(r"\{[^}]*\}|python -m \S+", "", message.string))]
    asked = [words["zh"] for words in report.SECTIONS.values()]
    assert all(CHINESE.search(text) for pair in asked for text in pair)

    def count(texts):
        return sum(max(1, len(SENTENCE.findall(text))) for text in texts)

    print()
    for name in [*NOTEBOOKS, *sorted(CODE)]:
        one, other = ([text for file, text in found if file == name] for found in (english, chinese))
        done = sum(bool(CHINESE.search(text)) for text in other)
        print(f"{name:24} {count(one):4} sentences in {len(one):3} pieces, {done} of them in Chinese")
    print(f"{'messages':24} {count(m.id for m in messages):4} sentences in {len(messages):3} pieces, "
          f"{sum(bool(CHINESE.search(m.string)) for m in messages)} of them in Chinese")


def tokens(source):
    """What Python reads of a source, without docstrings."""
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            docstrings.add(node.body[0].value.lineno)
    return [(token.type, token.string) for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type not in (tokenize.COMMENT, tokenize.NL) and token.start[0] not in docstrings]


def test_code_is_the_same_in_both_languages(editions):
    english, chinese = editions["en"], editions["zh"]
    readmes = {"README.md", "README.zh.md", "README.en.md"}
    assert english.keys() - readmes == chinese.keys() - readmes
    for name in english.keys() - readmes - CODE - set(NOTEBOOKS) - {"kit/locale/language.txt"}:
        assert english[name] == chinese[name], name
    for name in CODE:
        assert tokens(english[name]) == tokens(chinese[name]), name
    for name in NOTEBOOKS:
        one, other = (nbformat.reads(edition[name], as_version=4).cells for edition in (english, chinese))
        assert [cell.cell_type for cell in one] == [cell.cell_type for cell in other], name
        for mine, theirs in zip(one, other):
            if mine.cell_type == "code":
                assert tokens(mine.source) == tokens(theirs.source), mine.source


def test_an_english_edition_is_written_as_its_sources_are(editions):
    for name in CODE:
        assert editions["en"][name] == handout.cut((ROOT / name).read_text(encoding="utf-8"), name)[0]


@pytest.mark.parametrize("name", ["README.md", "teacher/answers.md", "teacher/handout/README.en.md"])
def test_pages_in_both_languages_have_the_same_sections_code_and_numbers(name):
    chinese = name.replace(".en.md", ".md").replace(".md", ".zh.md")
    one, other = ((ROOT / path).read_text(encoding="utf-8") for path in (name, chinese))
    glossary = "\n## 术语对照"
    assert name.endswith(".en.md") == (glossary in other)
    other = other.partition(glossary)[0]

    def headings(text):
        return re.findall(r"^#+(?= )|^\*\*§\d+", text, flags=re.MULTILINE)

    def numbers(text):
        text = re.sub(r"`pip config[^`]*`|--language `?\w+", "", text)
        return {number.rstrip(",.") for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)}

    assert headings(one) == headings(other)
    code, other_code = (re.findall(r"^```.*?^```", text, flags=re.MULTILINE | re.DOTALL) for text in (one, other))
    assert len(code) == len(other_code)
    for mine, theirs in zip(code, other_code):  # commands are the same; remarks behind them may be Chinese
        assert mine == theirs or (re.sub(r" *# .*", "", mine).replace("NUMBER", "学号")
                                  == re.sub(r" *# .*", "", theirs)), theirs
    assert numbers(one) == numbers(other)
    assert not [line for line in re.sub(r"```.*?```", "", other, flags=re.DOTALL).splitlines() if english_left(line)]


def test_the_glossary_has_the_terms_of_the_course():
    text = (ROOT / "teacher/handout/README.zh.md").read_text(encoding="utf-8").partition("## 术语对照")[2]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    pairs = [cells[i:i + 2] for cells in rows for i in (0, 2)]
    assert len(pairs) >= 40 and all(CHINESE.search(chinese) and not CHINESE.search(english)
                                    for english, chinese in pairs if "logit" not in english)


# ------------------------------------------------------------------------------- texts that nobody has marked

# Texts of several words that are no sentences: what is passed on to programs, or names of sections.
NO_SENTENCES = {"python -m kit {}", "python -m kit runs", "python -m kit check", "python -m kit zip", "an error",
                "what is kept", "losses and updates", "upper left", "outside lower center", "the file", "an enlarger",
                "−log D(hr) − log(1 − D(sr))", "adversarial weight", "learning rate", "batch norm", "most important",
                "python -m kit enlarge", "python -m kit export", "an HEIC photograph", "an HEIF photograph",
                "an AVIF picture", "low resolution"}  # (which `shown` translates)
QUIET = {"Parser", "add_argument", "error", "compile", "match", "search", "sub", "findall", "fullmatch", "exit",
         "Check", "_one_of", "namedtuple"} | set(translation.MARKS) - {"Finding"}


def unmarked(source):
    """Sentences in a Python source that are shown without being marked for translation: (line, text).

    What an error says is English everywhere; docstrings, patterns and helps of options are not shown to students.
    """
    found = []

    def is_sentence(text):
        words = re.findall(r"(?<![\w/.<{:_-])[a-z]{2,}(?![\w/.({:=_-])", text)
        code = "\\" in text or text.startswith("<")
        return len(words) >= 2 and " " in text.strip() and not code and text not in NO_SENTENCES

    def walk(node, quiet):
        if isinstance(node, (ast.Raise, ast.Assert)):
            quiet = True
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            quiet = quiet or name in QUIET or name.endswith("Error")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return
        if isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            if not quiet and is_sentence(text):
                found.append((node.lineno, text))
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    walk(part, quiet)
            return
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not quiet and is_sentence(node.value):
            found.append((node.lineno, node.value))
        for child in ast.iter_child_nodes(node):
            walk(child, quiet)

    walk(ast.parse(source), False)
    return found


# Files whose unmarked texts are parts of errors, of notes to programs, or in both languages already.
ERRORS_ONLY = {"kit/compute/device.py", "kit/compute/inference.py", "kit/console.py", "kit/data/download.py",
               "kit/data/image_cache.py", "kit/evaluation/formats.py", "kit/handin/findings.py", "kit/handin/report.py",
               "kit/handin/sandbox.py", "kit/handin/smoke_test.py", "kit/runs/pickles.py", "kit/runs/provenance.py",
               "kit/settings/schema.py", "kit/training/checks.py", "kit/training/divergence.py",
               "kit/training/epoch.py", "kit/training/keeping.py", "kit/training/phases.py", "kit/vgg.py"}


@pytest.mark.parametrize("path", [path for path in TRANSLATED
                                  if path.relative_to(ROOT).as_posix() not in ERRORS_ONLY], ids=lambda path: path.name)
def test_no_sentence_is_shown_without_being_marked_for_translation(path):
    found = unmarked(path.read_text(encoding="utf-8"))
    assert not found, f"put into tr(…): {found}"


def test_unmarked_sentences_are_seen():
    assert unmarked('print(f"the run {name} is new")') and unmarked('axis.set(title="grey value of it")')
    assert not unmarked('print(tr("the run is new"))') and not unmarked('raise ValueError("this is not so")')


# ------------------------------------------------------------------------------------------- a student's way


@pytest.mark.xdist_group("chinese")
def test_a_student_goes_the_whole_way_in_chinese(chinese_student):
    has_font = any(font.name in fonts.CHINESE for font in fonts.font_manager.fontManager.ttflist)
    for name in NOTEBOOKS:
        cells = [cell for cell in nbformat.read(chinese_student / name, as_version=4).cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in cells)
        for output in [output for cell in cells for output in cell.outputs]:
            assert output.output_type != "error", output
            if "missing from" in output.get("text", "") and not has_font:
                continue  # a warning of matplotlib's: boxes stand for Chinese, and the first cell has said so
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            if not re.search(r"def |yield", text):  # (the source of an epoch is shown, too)
                assert not english_left(text), text
    report_text = (chinese_student / "report.md").read_text(encoding="utf-8")
    assert "| 参数 | 当前值 | 论文 | 含义 |" in report_text and "## 7  参考来源" in report_text
    assert not english_left(re.sub(r"```.*?```|My own words\.", "", report_text, flags=re.DOTALL))
    done = python("-m", "kit", "zip", "li", cwd=chinese_student)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "29 个测试中通过 29 个" in done.stdout and "请提交这个文件" in done.stdout
    assert not english_left(done.stdout)


# -------------------------------------------------------------------------------------------------- figures


def figures():
    """Every kind of figure that needs no training, by name."""
    import skimage
    import torch

    import models
    import solver
    from datasets import Pair
    from imresize import imresize
    from kit import lessons, plots
    from utils import bicubic

    picture = skimage.data.astronaut()[100:228, 150:278]
    torch.manual_seed(0)
    generator = models.make_generator(solver.settings("demo", channels=4, blocks=2))
    methods = {"bicubic": bicubic}
    history = [{"phase": phase, "epoch": epoch, "updates": 10.0 * epoch, "seconds": 5.0, "content_loss": 0.1,
                "discriminator_loss": 1.0, "adversarial_loss": 0.7, "d_real": 0.6, "d_fake": 0.4, "psnr": 25.0 + epoch,
                "ssim": 0.7, "niqe": 6.0} for phase in ("warmup", "adversarial") for epoch in (1, 2)]
    scores = [{"set": "Set5", "picture": f"img_{i:03d}", "method": method, "psnr": 20.0 + i, "ssim": 0.8, "niqe": 5.0}
              for i in range(3) for method in ("bicubic", "adversarial", "original")]
    pictures = {"low resolution": imresize(picture, 0.25), "bicubic": bicubic(imresize(picture, 0.25)),
                "original": picture}
    yield lessons.ill_posed(picture)
    yield lessons.pixel_shuffle()
    yield lessons.mse_blurs()
    yield lessons.updates()
    yield lessons.saturation(history)
    yield lessons.shifted_texture(picture)
    yield lessons.equal_psnr(picture, side=96)
    yield lessons.edge(methods)
    yield lessons.tiles(generator, picture)
    yield lessons.twice(methods, picture)
    yield lessons.block_contributions(generator, Pair("a", imresize(picture, 0.25), picture))
    yield lessons.activations(generator)
    yield plots.plot_history({"demo": history}, {"bicubic": 25.0})
    yield plots.plot_history({})
    yield plots.plot_minutes({"demo": history})
    yield plots.plot_scores(scores)
    yield plots.plot_plane(scores, {"demo": history}, "Set5")
    yield plots.plot_comparison(pictures, detail=48)


def test_labels_of_figures_are_chinese():
    names = {"img_000", "img_001", "img_002", "Set5", "PSNR (dB)", "D(fake)", "ReLU", "leaky ReLU, 0.2", "adversarial",
             "−log D", "log(1 − D)", "−log D(hr) − log(1 − D(sr))", "PixelShuffle(2)"}
    count = 0
    with speaking("zh"):
        for figure in figures():
            for artist in figure.findobj(Text):
                text = artist.get_text().strip()
                if not text or text in names or artist.get_family() == ["monospace"]:
                    continue
                count += bool(CHINESE.search(text))
                rest = re.sub(r"adversarial|warmup|demo", "", text)
                assert CHINESE.search(text) or not re.search(r"[A-Za-z]{4,}", rest), text
    assert count > 60
