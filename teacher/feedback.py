"""A page for each student, with what was found, what to do, the scores and the pictures, and a zip of all of them."""

import json
import re
import zipfile
from pathlib import Path

from datasets import TestDataset
from kit.files import write_whole
from kit.handin.opening import root_of
from kit.language import speaking, tr
from teacher.pages import image, text, write_page
from teacher.rating import find_pictures
from teacher.roster import read_own
from utils import psnr, ssim

WORDS = {
    "en": {"title": "What became of your hand-in", "complete": "It is complete.", "incomplete": "Something is missing.",
           "problem": "Problems", "note": "Notes", "ok": "Fine", "do": "What to do", "grade": "Points",
           "checks": "checks", "pictures": "pictures", "report": "report", "late_days": "days late", "points": "all",
           "comment": "comment", "scores": "Pictures and scores", "yours": "yours", "original": "original",
           "opinion": "opinion, 1 to 5", "none": "None of the graded pictures is among the files."},
    "zh": {"title": "作业反馈", "complete": "提交内容完整。", "incomplete": "提交内容不完整。", "problem": "问题",
           "note": "提示", "ok": "通过", "do": "处理办法", "grade": "得分", "checks": "检查", "pictures": "图片",
           "report": "报告", "late_days": "迟交天数", "points": "总分", "comment": "评语", "scores": "图片与评分",
           "yours": "你的结果", "original": "原图", "opinion": "主观评分（1–5）",
           "none": "提交的文件中没有供评分的图片。"},
}
# What to do about a problem, by what was looked at.
ADVICE = {
    "the file": {"en": "Hand in the zip that `python -m kit zip` makes.",
                 "zh": "请提交 `python -m kit zip` 生成的 zip 文件。"},
    "files": {"en": "`python -m kit check` lists what is missing; `python -m kit zip` leaves model files out.",
              "zh": "`python -m kit check` 会列出缺少的内容；`python -m kit zip` 不会打包模型文件。"},
    "notebook": {"en": "Restart the kernel, run all cells from top to bottom, save, and make the zip again.",
                 "zh": "重启内核，从头到尾运行全部单元格，保存后重新生成 zip。"},
    "pictures": {"en": "Run `super_resolution.ipynb` to its end with the list of Set5, and make the zip again.",
                 "zh": "在有 Set5 列表的情况下把 `super_resolution.ipynb` 运行到最后，再重新生成 zip。"},
    "scores": {"en": "Run `test.ipynb` and `super_resolution.ipynb` again, both with the same run.",
               "zh": "用同一次运行（run）重新执行 `test.ipynb` 和 `super_resolution.ipynb`。"},
    "report": {"en": "Run `python -m kit report`, and write in your own words where ✎ stands.",
               "zh": "运行 `python -m kit report`，在 ✎ 处用自己的话写。"},
    "code": {"en": "`python -m kit check` tries your code in the same way on your machine.",
             "zh": "`python -m kit check` 会在你的电脑上以同样的方式运行你的代码。"},
}
SAME = {"networks": "code", "training": "code", "kit": "code", "notebooks": "notebook", "check": "the file"}


def make(checks, out, csv_file="data/lists/Set5.csv", opinions=None, grades=None, language="en",
         notes=False):
    """Write `<hand-in>.html` for each that was checked, and `feedback.zip`, which Moodle takes back.

    Parameters
    ----------
    checks : path
        The folder that `check` wrote.
    out : path
        For the pages and the zip. In the zip each page has a folder called as Moodle calls them in its download
        (`<name>_<number>_assignsubmission_file_`), by which its "Upload multiple feedback files in a zip" finds the
        student; who has no number of the platform's has one with the hand-in's name.
    csv_file : path
        The list of the graded pictures.
    opinions, grades : path, optional
        mos_pictures.csv and grades.csv, where they are to be told.
    language : {"en", "zh"}
    notes : bool
        Tell notes, too, which are written for the instructor.

    Returns the paths of the pages. What checks found is told in the language that `check` spoke.
    """
    checks, out = Path(checks), Path(out)
    pairs = list(TestDataset(csv_file, 4)) if Path(csv_file).is_file() else []
    rated = {(row["handin"], row["picture"]): float(row["mos"]) for row in read_own(opinions)} if opinions else {}
    graded = {row["handin"]: row for row in read_own(grades)} if grades else {}
    words, pages = WORDS[language], {}
    for row in read_own(checks / "checks.csv"):
        name = row["handin"]
        if not name:
            continue  # has handed in nothing
        findings = json.loads((checks / f"{name}.json").read_bytes())["findings"]
        findings = [one for one in findings if notes or one["verdict"] != "note"]
        folder = checks / "handins" / name
        pictures = find_pictures(root_of(folder), pairs, Path(csv_file).stem) if folder.is_dir() else {}
        opinion = {picture: mos for (handin, picture), mos in rated.items() if handin == name}
        with speaking(language):
            body = "\n".join([_who(row, words), _found(findings, words, language), _points(graded.get(name), words),
                              _pictures(pairs, pictures, opinion, words)])
        page = out / f"{name}.html"
        write_page(page, f"{words['title']}: {row['name'] or name}", body, language)
        pages[page] = _folder(row)
    with write_whole(out / "feedback.zip") as temporary, \
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for page, place in pages.items():
            archive.write(page, f"{place}/feedback.html")
    return list(pages)


def _folder(row):
    """What Moodle calls the folder of a student; it finds the number between the first two underscores."""
    if not row["platform_id"]:
        return row["handin"]
    name = re.sub(r"[_/\\\\]", " ", row["name"])
    return f"{name}_{row['platform_id']}_assignsubmission_file_"


def _who(row, words):
    who = text(" ".join(filter(None, [row["student_id"], row["name"]])) or row["handin"])
    verdict = words["complete" if row["complete"] == "yes" else "incomplete"]
    return f"<h1>{words['title']}</h1><p>{who}</p><p><strong>{verdict}</strong></p>"


def _found(findings, words, language):
    """What was found, problems first, with what to do about them."""
    parts = []
    for verdict in ("problem", "note", "ok"):
        chosen = [one for one in findings if one["verdict"] == verdict]
        items = [f"<li><strong>{text(tr(one['what']))}</strong>: {text(one['text'])}" + (
            f"<br>{words['do']}: {_advice(one['what'], language)}" if verdict == "problem" else "") for one in chosen]
        if chosen:
            parts.append(f'<h2 class="{verdict}">{words[verdict]}</h2><ul>{"".join(items)}</ul>')
    return "\n".join(parts)


def _points(grade, words):
    if not grade or not grade["points"]:
        return ""  # not known yet
    rows = [(words[name], f"{grade[name]} / {grade[f'{name}_of']}") for name in ("checks", "pictures", "report")]
    if float(grade["late_days"]):
        rows.append((words["late_days"], grade["late_days"]))
    rows.append((words["points"], f"{grade['points']} / {grade['points_of']}"))
    table = "".join(f"<tr><th>{title}<td>{text(value)}" for title, value in rows)
    comment = f"<p>{words['comment']}: {text(grade['comment'])}</p>" if grade["comment"] else ""
    return f"<h2>{words['grade']}</h2><table>{table}</table>{comment}"


def _pictures(pairs, pictures, rated, words):
    """The graded pictures beside their originals, with their scores; nothing where it is not known which they are."""
    if not pairs:
        return ""
    parts = [f"<h2>{words['scores']}</h2>"] + ([] if pictures else [f"<p>{words['none']}</p>"])
    for pair in pairs:
        if pair.name in pictures:
            picture, said = pictures[pair.name], [words["yours"]]
            if picture.shape == pair.hr.shape:
                said += [f"{psnr(picture, pair.hr):.2f} dB", f"SSIM {ssim(picture, pair.hr):.4f}"]
            if pair.name in rated:
                said.append(f"{words['opinion']}: {rated[pair.name]:.2f}")
            both = image(picture, ", ".join(said)) + image(pair.hr, f"{pair.name}, {words['original']}")
            parts.append(f'<div class="row">{both}</div>')
    return "\n".join(parts)


def _advice(what, language):
    key = "notebook" if what.endswith(".ipynb") else SAME.get(what, what)
    said = text(ADVICE.get(key, ADVICE["files"])[language])
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(said.split("`")))
