"""One page for the instructor: the class as a table, how scores are spread, best and worst pictures, who is missing."""

import io
import json
from pathlib import Path

from PIL import Image

from datasets import TestDataset
from kit.handin.opening import root_of
from teacher.classes import rounded
from teacher.pages import drawing, image, text, write_page
from teacher.rating import find_pictures
from teacher.roster import read_own
from utils import psnr

COLUMNS = ["hand-in", "complete", "problems", "notes", "PSNR", "SSIM", "opinion", "points", "findings"]
# A click on a header sorts by it, and a second one the other way; what is no number is sorted as text, below.
SORT = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const header = button.closest("th"), body = header.closest("table").tBodies[0], place = header.cellIndex;
  const down = header.getAttribute("aria-sort") !== "descending";
  for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  const order = (a, b) => {
    const [x, y] = [a, b].map(row => row.cells[place].innerText.trim());
    if (!x || !y) return !x - !y;
    const numbers = [x, y].map(Number);
    const sign = numbers.some(isNaN) ? x.localeCompare(y) : numbers[0] - numbers[1];
    return down ? -sign : sign;
  };
  body.append(...[...body.rows].sort(order));
};
"""


def make(checks, out, csv_file="data/lists/Set5.csv", opinions=None, grades=None):
    """Write the page.

    Parameters
    ----------
    checks : path
        The folder that `check` wrote; where `similarity` was run, too, its hits are told.
    out : path
        The page.
    csv_file : path
        The list of the graded pictures.
    opinions : path, optional
        The folder that `scores` wrote.
    grades : path, optional
        grades.csv.
    """
    checks = Path(checks)
    rows = read_own(checks / "checks.csv")
    mean = {row["handin"]: row["mos"] for row in read_own(Path(opinions, "mos.csv"))} if opinions else {}
    points = {row["handin"]: row["points"] for row in read_own(grades)} if grades else {}
    for row in rows:
        row["found"] = []
        if row["handin"]:
            found = json.loads((checks / f"{row['handin']}.json").read_bytes())["findings"]
            row["found"] = [one for one in found if one["verdict"] != "ok"]
        row["opinion"], row["points"] = mean.get(row["handin"], ""), points.get(row["handin"], "")
    there, missing = [row for row in rows if row["handin"]], [row for row in rows if not row["handin"]]
    parts = [f"<h1>The class</h1><p>{len(there)} hand-ins, {sum(row['complete'] == 'yes' for row in there)} of them "
             f"complete; {len(missing)} missing.</p>", _table(there)]
    numbers = {"PSNR of the graded pictures (dB)": "psnr", "mean opinion score": "opinion"}
    histograms = [_histogram(title, [float(row[key]) for row in there if row[key]]) for title, key in numbers.items()]
    if any(histograms):
        parts.append(f'<h2>How they are spread</h2><div class="row">{"".join(histograms)}</div>')
    rated = read_own(Path(opinions, "mos_pictures.csv")) if opinions else []
    parts += [_extremes(checks, there, csv_file, rated), _similar(checks)]
    if missing:
        names = [f"{row['student_id']} {row['name']}: {row['findings']}" for row in missing]
        parts.append(f"<h2>Missing</h2><ul>{''.join(f'<li>{text(name)}' for name in names)}</ul>")
    write_page(out, "The class", "\n".join(parts), script=SORT,
               style="th[aria-sort] button::after { color: #222 } td.findings { min-width: 16em; font-size: .9em; "
                     "overflow-wrap: anywhere } th, td { padding: .3em .4em }\n")


def _table(rows):
    def line(row):
        who = text(row["handin"])
        cells = [row["complete"], row["problems"], row["notes"], rounded(row["psnr"]), row["ssim"],
                 rounded(row["opinion"]), row["points"]]
        verdict = "ok" if row["complete"] == "yes" else "problem"
        return (f"<tr><td>{who}<td class='{verdict}'>{text(cells[0])}"
                + "".join(f"<td class='number'>{text(cell)}" for cell in cells[1:])
                + "<td class='findings'>" + "".join(f"<div class='{one['verdict']}'>{text(one['what'])}: "
                                                    f"{text(one['text'])}</div>" for one in row["found"]))

    titles = "".join(f"<th><button>{title}</button>" for title in COLUMNS)
    return (f'<div class="wide"><table><thead><tr>{titles}</thead><tbody>{"".join(map(line, rows))}</tbody></table>'
            f"</div>")


def _histogram(title, values):
    """How often values come, as a figure; nothing for none."""
    if not values:
        return ""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5, 2.6), layout="constrained")
    axis.hist(values, bins=min(20, max(5, len(values) // 2)), color="tab:blue", edgecolor="white")
    axis.set(xlabel=title, ylabel="hand-ins")
    axis.yaxis.get_major_locator().set_params(integer=True)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    plt.close(figure)
    return drawing(Image.open(file), "PNG")


def _extremes(checks, rows, csv_file, rated):
    """Of each graded picture the version that was liked best and the one least, or the highest and lowest in PSNR."""
    if not Path(csv_file).is_file():
        return ""
    pairs, parts = list(TestDataset(csv_file, 4)), []
    found = {row["handin"]: find_pictures(root_of(checks / "handins" / row["handin"]), pairs, Path(csv_file).stem)
             for row in rows if (checks / "handins" / row["handin"]).is_dir()}
    for pair in pairs:
        versions = {name: pictures[pair.name] for name, pictures in found.items() if pair.name in pictures}
        scores = {row["handin"]: (float(row["mos"]), "opinion {:.2f}") for row in rated
                  if row["picture"] == pair.name and row["handin"] in versions} or {
            name: (psnr(picture, pair.hr), "{:.2f} dB") for name, picture in versions.items()
            if picture.shape == pair.hr.shape}
        if len(scores) > 1:
            best, worst = max(scores, key=scores.get), min(scores, key=scores.get)
            told = [image(versions[name], f"{word}: {name}, {scores[name][1].format(scores[name][0])}")
                    for word, name in (("best", best), ("worst", worst))]
            parts.append(f'<div class="row">{"".join(told)}{image(pair.hr, f"original: {pair.name}")}</div>')
    return "<h2>Best and worst</h2>" + "\n".join(parts) if parts else ""


def _similar(checks):
    """The pairs that `similarity` has found."""
    if not (checks / "similarity.csv").is_file():
        return ""
    pairs = read_own(checks / "similarity.csv")
    items = [f"<li>{text(pair['first'])} and {text(pair['second'])}: {float(pair['code']):.0%} of the code"
             + (f"; pictures: {text(pair['pictures'])}" if pair["pictures"] else "") for pair in pairs]
    return ("<h2>Worth a look</h2><p>Similar does not mean copied; <code>similarity.html</code> has both sides.</p>"
            + (f"<ul>{''.join(items)}</ul>" if items else "<p>No pair is.</p>"))
