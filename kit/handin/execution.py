"""Executing the notebooks of a hand-in again, in the sandbox and in a small setting, for who wants to know.

That the cells of a notebook run says that somebody could have executed them; that their outputs are what they gave
then, nobody can tell afterwards.
"""

import json

from kit.handin import sandbox
from kit.handin.contents import NOTEBOOKS
from kit.handin.findings import NOT_HERE, Finding, sanitize
from kit.handin.notebooks import begin_of_notes, code_cells
from kit.handin.trial import prepare
from kit.language import tr


def check_execution(root, folder, seconds, edition=None, vgg=None):
    """Whether the notebooks' cells run, from top to bottom, as notes: elsewhere much can be otherwise.

    Cells before the kit's own, of Colab say, are left out. For the parameters see `kit.handin.trial.check_code`.
    """
    _, readable = prepare(root, folder, edition, vgg)
    notebooks = []
    for name in NOTEBOOKS:
        try:
            cells = code_cells(root / name)
        except (ValueError, OSError):
            continue  # said already
        first = begin_of_notes(cells) - 1
        notebooks.append((name, [(count or i, source) for i, (source, count, _) in enumerate(cells, 1)][first:]))
    (folder / "cells.json").write_text(json.dumps(notebooks), encoding="utf-8")
    outcome = sandbox.run(folder / "kit" / "handin" / "run_cells.py", [], folder, seconds, readable=readable)
    done = _read(sandbox.read_left(folder, "executed.json", outcome.word))
    findings = []
    for name, cells in notebooks:
        result = done.get(name)
        if result is None:
            text = tr("it was executed again, and did not come to its end within {seconds} seconds", seconds=seconds) \
                if outcome.reason == "time" else tr("it was executed again, and ended on its own")
        elif NOT_HERE in result["error"]:
            text = tr("it was executed again up to cell [{failed}], which needs weights that are not here", **result)
        elif result["error"]:
            text = tr("it was executed again, and its cell [{failed}] failed: {error}", **result)
        else:
            findings.append(Finding(name, "ok", tr("executed again in a small setting, all {count} cells",
                                                   count=len(cells))))
            continue
        findings.append(Finding(name, "note", text))
    return findings


def _read(content):
    """What was executed, name of the notebook → its row; everything in it is a stranger's."""
    try:
        return {str(row["notebook"]): {"failed": int(row.get("failed", 0)),
                                       "error": sanitize(row.get("error", ""))[:300]} for row in json.loads(content)}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
