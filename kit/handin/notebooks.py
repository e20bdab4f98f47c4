"""Whether notebooks were executed from top to bottom and not changed afterwards, and what they show."""

import json
import re
from contextlib import suppress

from kit.handin.contents import LARGEST_FILE, NOTEBOOKS
from kit.handin.findings import Finding, sanitize
from kit.handin.texts import text_of
from kit.language import tr
from kit.notebook import LONGEST, digest

MOST_CELLS = 1000


def check_notebooks(root):
    """Whether the notebooks were executed from top to bottom, without an error, and not changed afterwards."""
    findings, executed = [], _executed_cells(root / "results" / "cells.jsonl")
    for name in NOTEBOOKS:
        if (root / name).is_file():
            verdict, words = _looked_through(root / name, executed)
            findings.append(Finding(name, verdict, words))
            if verdict == "ok" and (own := begin_of_notes(code_cells(root / name)) - 1):
                findings.append(Finding(name, "note", tr(
                    "its first {count} cells, before the kit's own, are not recorded: have a look at them", count=own)
                    if own > 1 else tr("its first cell, before the kit's own, is not recorded: have a look at it")))
    return findings


def _looked_through(path, executed):
    """A verdict on a notebook, and a sentence."""
    again = tr("restart the kernel, run all cells, and save")
    try:
        cells = code_cells(path)
    except ValueError as error:
        return "problem", str(error)
    bad = next((output for _, _, outputs in cells for output in outputs if output.get("output_type") == "error"), None)
    if bad:
        error = f"{bad.get('ename', 'an error')}: {bad.get('evalue', '')}"
        return "problem", tr("a cell ended with {error}; {again}", error=sanitize(error)[:120], again=again)
    counts = [count for _, count, _ in cells]
    if not cells or all(count is None for count in counts):
        return "problem", tr("it was not executed; {again}", again=again)
    if counts != list(range(1, len(counts) + 1)):
        return "problem", tr("its cells were not executed once each from top to bottom (they are numbered {numbers}); "
                             "{again}", numbers=_few(counts), again=again)
    if not any(outputs for _, _, outputs in cells):
        return "problem", tr("its outputs were removed; {again}", again=again)
    if not executed:
        return "note", tr("it cannot be told whether it was changed afterwards: results/cells.jsonl is missing")
    wanted = [(count, digest(source)) for source, count, _ in cells]
    first = begin_of_notes(cells)
    noted = {one for kernel in executed.values() for one in kernel.items()}
    if not noted & set(wanted[first:] or wanted):
        return "note", tr("it cannot be told whether it was changed afterwards: results/cells.jsonl knows nothing of "
                          "it; {again}", again=again)
    fewest = min(([count for count, digest in wanted if kernel.get(count, digest) != digest]
                  + [count for count, _ in wanted[first:] if count not in kernel] for kernel in executed.values()),
                 key=len)
    if fewest:
        return "problem", tr("it was changed after it had been executed, for example in cell [{number}]; {again}",
                             number=fewest[0], again=again)
    return "ok", tr("executed from top to bottom, as it stands")


def begin_of_notes(cells):
    """How many cells of a notebook were run before the kit noted what is: up to the one that calls `set_up`."""
    return next((i + 1 for i, (source, *_) in enumerate(cells) if re.search(r"\bset_up\(", source)), 1)


def code_cells(path):
    """The code cells of a notebook that are not empty: (source, number of execution, outputs)."""
    if path.stat().st_size > LARGEST_FILE * 2**20:
        raise ValueError(tr("it has {size:.0f} MB; show smaller pictures", size=path.stat().st_size / 2**20))
    try:
        cells = json.loads(text_of(path))["cells"]
        code = [("".join(cell["source"]), cell.get("execution_count"), cell.get("outputs", []))
                for cell in cells if cell["cell_type"] == "code"]
        usual = all(type(count) in (int, type(None)) and all(isinstance(output, dict) for output in outputs)
                    for _, count, outputs in code)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(tr("it is not a notebook")) from error
    if not usual or len(code) > MOST_CELLS:
        raise ValueError(tr("it is not a notebook as Jupyter writes it"))
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


def shown_scores(path):
    """What the tables of scores in an executed notebook say: (set, method) → (PSNR, SSIM)."""
    try:
        outputs = [output for _, _, outputs in code_cells(path) for output in outputs]
    except (ValueError, OSError):
        return {}
    return scores_in([re.split(r"\s{2,}", line.strip()) for output in outputs
                      for line in _text_of(output).splitlines()])


def scores_in(lines):
    """The scores in tables, given as lines of cells, as the kit writes them: (set, method) → all their (PSNR, SSIM)."""
    found, columns = {}, {}
    for method, *cells in lines:  # (what is printed before a table may stand in its first line)
        headers = {i: re.match(r"(\S+) \(\d+", cell) for i, cell in enumerate(cells)}
        if any(headers.values()):
            columns = {i: header[1] for i, header in headers.items() if header}
            continue
        for i, cell in enumerate(cells):
            with suppress(ValueError, KeyError):
                psnr, ssim = (float(number.strip().replace("∞", "inf")) for number in cell.split("/")[:2])
                found.setdefault((columns[i], method), []).append((psnr, ssim))
    return found


def _text_of(output):
    data = output.get("data", {})
    text = output.get("text") or (data.get("text/plain", "") if isinstance(data, dict) else "")  # printed, or shown
    return "".join(text) if isinstance(text, (str, list)) else ""


def _few(counts):
    return ", ".join("–" if count is None else str(count) for count in counts[:8]) + (", …" if len(counts) > 8 else "")
