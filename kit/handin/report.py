"""The report: a draft of everything that the runs' folders say, with places for the student's own words.

    python -m kit report                  # writes report.md, in English; or renews what is generated in it
    python -m kit report --language zh    # in Chinese

What stands between `<!-- kit: … -->` and `<!-- /kit -->` is generated, and renewed by the next call; everything else is
the student's and is never touched. Lines that begin with ✎ say what to write in their place.
"""

import csv
import itertools
import json
import re
import sys
import textwrap
import tokenize
from pathlib import Path

from datasets import TestDataset
from kit.compare.tables import curves, table
from kit.console import Parser, Table
from kit.evaluation.measure import score_captions
from kit.evaluation.scores import score_table
from kit.files import write_whole
from kit.handin.contents import REPORT, REPORT_PICTURES
from kit.handin.notebooks import scores_in
from kit.handin.texts import text_of
from kit.language import language as spoken
from kit.language import speaking, tr
from kit.plots.pictures import plot_comparison, save_figure
from kit.runs.code import digest
from kit.runs.history import current_run, read_history, read_predictions, read_record, run_names
from kit.settings.describe import describe, format_value
from kit.settings.recipes import Settings
from utils import bicubic, read_picture

PEN = "✎"

# The headings that the assignment asks for, what is generated below each, and what the student writes there.
SECTIONS = {
    "training": {
        "en": ("How generator and discriminator were trained", "Say in your own words what each phase is for, in which "
               "order the networks are updated and why, and what you changed in `solver.py` and `models.py`."),
        "zh": ("生成器和判别器的训练方式", "用自己的话说明：每个阶段的作用，两个网络更新的先后次序及理由，"
               "以及你在 `solver.py` 和 `models.py` 中做了哪些修改。")},
    "settings": {
        "en": ("Best settings", "Say how you found these settings, and which of them mattered most."),
        "zh": ("最佳参数", "说明这些参数是怎样得到的，其中哪些影响最大。")},
    "curves": {
        "en": ("Curves", "Say what the curves show: where training slows down, and what the discriminator believes."),
        "zh": ("训练曲线", "说明曲线反映了什么：训练在何处变慢，判别器的判断如何变化。")},
    "scores": {
        "en": ("Scores on the test sets", "Compare your scores with bicubic interpolation and with the published ones, "
               "and say what PSNR, SSIM and NIQE do not tell."),
        "zh": ("测试集结果", "将你的结果与双三次插值及已发表的结果比较，并说明 PSNR、SSIM、NIQE 没有反映出什么。")},
    "pictures": {
        "en": ("The pictures that are graded", "Say what your pictures do well and badly, and where detail was made "
               "up."),
        "zh": ("供人工评分的图片", "说明你的图片好在哪里、差在哪里，哪些细节是凭空生成的。")},
    "tried": {
        "en": ("What was tried", "Say what you expected of each run, what came of it, and what you conclude."),
        "zh": ("所做的尝试和改进", "说明每次尝试的预期、结果和结论。")},
    "sources": {
        "en": ("Sources", "Name everything that you took from elsewhere, papers, code, people, AI assistants, "
               "and what you did with it. If there was nothing but this kit and the paper, say so."),
        "zh": ("参考来源", "列出所有借鉴的内容：论文、代码、同学、AI 工具等，以及你是如何使用的。"
               "若只用了本套件和原论文，也请写明。")},
}

TITLE = {"en": "Report: image super-resolution with SRGAN", "zh": "实验报告：基于 SRGAN 的图像超分辨率"}


def write(folder=".", language=None, picture_folder="results/handin", lists="data/lists"):
    """Write the draft `report.md` and its pictures in `report/`, or renew what is generated in them.

    Returns the path. Raises ValueError for another language, for a report whose marks were removed, and for one in the
    other language.
    """
    if language not in (None, *TITLE):
        raise ValueError(f"language must be en or zh, not {language!r}")
    folder = Path(folder)
    path = folder / REPORT
    # (On Windows each "\n" is written as "\r\n".)
    old = re.sub(r"\r+\n", "\n", text_of(path)) if path.is_file() else ""
    language_there = "zh" if SECTIONS["sources"]["zh"][0] in old else "en"
    if old and language not in (None, language_there):
        raise ValueError(f"{path}: is a report in the other language; move it away to get a new draft")
    language = language or (language_there if old else spoken())
    with speaking(language):
        nothing, parts = tr("nothing yet"), generated(folder, folder / picture_folder, folder / lists)
    blocks = {name: f"<!-- kit: {name} -->\n{text or f'*{nothing}*'}\n<!-- /kit -->"
              for name, text in parts.items()}
    if path.is_file():
        text = old
        for name, block in blocks.items():
            text, count = re.subn(rf"<!-- kit: {name} -->.*?<!-- /kit -->", lambda _, block=block: block, text, count=1,
                                  flags=re.DOTALL)
            if not count:
                raise ValueError(f"{path}: has no place <!-- kit: {name} --> … <!-- /kit --> any more for what is "
                                 f"generated; put it back, or move your report away to get a new draft")
    else:
        lines = [f"# {TITLE[language]}"]
        for number, (name, words) in enumerate(SECTIONS.items(), 1):
            heading, ask = words[language]
            lines += [f"## {number}  {heading}", *([blocks[name]] if name in blocks else []), f"{PEN} {ask}"]
        text = "\n\n".join(lines) + "\n"
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def unwritten(path):
    """The sections that a report does not have, and those that have none of the student's own words: two lists.

    Raises ValueError for what is no text.
    """
    text = text_of(path)
    own = _without(_without(text, "<!-- kit: ", "<!-- /kit -->"), "<!--", "-->")
    parts = re.split(r"^##+[ \t]+(.*)$", own, flags=re.MULTILINE)
    written = {re.sub(r"^[\d.\s]+", "", heading).strip(): body for heading, body in zip(parts[1::2], parts[2::2])}
    lacking, empty = [], []
    for words in SECTIONS.values():
        heading, body = next(((words[language][0], written[words[language][0]]) for language in words
                              if words[language][0] in written), (None, ""))
        if heading is None:
            lacking.append(f"{words['en'][0]!r} ({words['zh'][0]})")
        elif _own_words(body, [ask for _, ask in words.values()]) < (1 if words is SECTIONS["sources"] else 2):
            empty.append(repr(heading))
    return lacking, empty


def tables_in(path):
    """The scores in the tables of a report: two of what `notebooks.scores_in` gives, of generated ones, and of others.
    """
    def scores(text):
        return scores_in([[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
                          for line in text.splitlines() if line.lstrip().startswith("|")])

    text = text_of(path)
    begin, end = "<!-- kit: scores -->", "<!-- /kit -->"
    return scores("".join(part.partition(end)[0] for part in text.split(begin)[1:])), scores(_without(text, begin, end))


def _own_words(body, hints):
    """How many words, or Chinese characters, stand in a section beside its hints, whether these were left there or not.
    """
    for hint in hints:
        body = body.replace(hint, "")
    return len(re.findall(r"[\u3400-\u9fff]|[^\W_]+", body.replace(PEN, "")))


def _without(text, begin, end):
    """A text without what stands between two marks."""
    head, *rest = text.split(begin)
    return head + "".join(part.partition(end)[2] if end in part else part for part in rest)


def generated(folder, picture_folder, lists):
    """What the folders say, by section, as Markdown; None where there is nothing yet. Pictures go to `report/`."""
    run, everything, pictures = None, folder / "runs", folder / REPORT_PICTURES
    if run_names(everything):
        run = current_run(None, everything)
    record = read_record(run, everything) if run else []
    return {
        "training": _training(record),
        "settings": _settings(record),
        "curves": _curves(run, everything, pictures),
        "scores": _scores(folder / "results" / "scores.csv"),
        "pictures": _pictures(picture_folder, lists, pictures),
        "tried": _tried(run, everything),
    }


def _tried(run, everything):
    """The table of runs, and what was predicted of rows of the sheet."""
    tables = [table(folder=everything)] if run else []
    rows = [[row, said] for row, predictions in read_predictions(everything).items() for said in predictions]
    tables += [Table(rows, [tr("row of the sheet"), tr("prediction")], left=2)] if rows else []
    return "\n\n".join(map(markdown, tables)) or None


def _training(record):
    """The phases with what their epochs hang on, and the source of each epoch function once."""
    if not record:
        return None
    rows = [[part["phase"], f"{part['first_epoch']}–{part['last_epoch']}",
             *(next((format_value(value) for key, value in part["trained_by"].items()
                     if any(word in key for word in words)), "") for words in [
                         ("_lr", "learning_rate"), ("schedule",), ("content_loss",), ("adversarial_weight",)]),
             ", ".join(f"{key.split()[0]} {value}" for key, value in part["trained_by"].items()
                       if key.endswith("of the epoch function"))] for part in record]
    sources = {_told_by(part["source"]): part["source"] for part in record if part["source"]}
    return "\n\n".join([markdown(Table(rows, [tr("phase"), tr("epochs"), tr("learning rate"), tr("schedule"),
                                               tr("content loss"), tr("adversarial weight"), tr("own")])),
                        *(f"```python\n{source.rstrip()}\n```" for source in sources.values())])


def _told_by(source):
    """What a source is told by, without its comments and layout."""
    try:
        return digest(textwrap.dedent(source))
    except (SyntaxError, tokenize.TokenError):  # of a record that an editor has been in
        return source


def _settings(record):
    if not record:
        return None
    return markdown(describe(Settings(record[-1]["settings"]), "changed"))


def _curves(run, everything, pictures):
    if not run or not read_history(run, everything):
        return None
    save_figure(curves([run], everything), pictures / "curves.png", dpi=80)
    return f"![curves]({REPORT_PICTURES}/curves.png)"


def _scores(csv_file):
    if not csv_file.is_file():
        return None
    with open(csv_file, newline="", encoding="utf-8") as file:
        rows = [{name: value if name in ("set", "picture", "method") else float(value) if value else None
                 for name, value in row.items()} for row in csv.DictReader(file)]
    return markdown(score_table(rows)) if rows else None


def _pictures(picture_folder, lists, pictures):
    """The pictures to be graded beside bicubic interpolation and the original, one figure each."""
    try:
        result = json.loads((picture_folder / "result.json").read_bytes())
        graded, method, run = (str(result[key]) for key in ("set", "method", "run"))
        dataset = TestDataset(lists / f"{graded}.csv", 4)
    except (OSError, ValueError, LookupError, TypeError) as error:
        print(tr("no pictures in the draft: {error}", error=error), file=sys.stderr)
        return None
    lines = [tr("{set}: {method}, run {run}", set=graded, method=method, run=run)]
    for pair in dataset:
        shown = {"bicubic": bicubic(pair.lr), "mine": read_picture(picture_folder / graded / f"{pair.name}.png"),
                 "original": pair.hr}
        save_figure(plot_comparison(shown, captions=score_captions(shown)), pictures / f"{pair.name}.png",
                          dpi=70)
        lines.append(f"![{pair.name}]({REPORT_PICTURES}/{pair.name.replace(' ', '%20')}.png)")
    return "\n\n".join(lines)


def markdown(table):
    """A Table as Markdown."""
    def line(cells):
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    header, *rows = table.cells
    rule = "| " + " | ".join(itertools.chain(["---"] * table.left, ["---:"] * (len(header) - table.left))) + " |"
    return "\n".join([line(header), rule, *map(line, rows)])


def main(arguments=None, prog="python -m kit report"):
    """The command `python -m kit report`."""
    parser = Parser(prog=prog, description="Write a draft of the report, or renew what is generated in it.",
                    epilog=f"Example: {prog} --language zh")
    parser.add_argument("--language", choices=TITLE, help="of a new draft; without it that of the kit")
    options = parser.parse_args(arguments)
    try:
        path = write(language=options.language)
    except (ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: error: {error}")
    left = len(unwritten(path)[1])
    print(f"{path}: " + (tr("{count} sections wait for your own words, where {pen} is", count=left, pen=PEN) if left
                         else tr("renewed")))
