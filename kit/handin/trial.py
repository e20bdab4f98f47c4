"""Trying the code of a hand-in in the sandbox, and what came of it."""

import json
import shutil

from kit.files import KIT
from kit.handin import sandbox
from kit.handin.contents import own_code
from kit.handin.findings import Finding, sanitize


def check_code(root, folder, trusted, seconds, edition=None):
    """Whether its networks and its training work: the tests of networks and a few updates, in a sandbox.

    They are tried in the new folder `folder`: the student's code with the machinery and the tests of the student
    edition that was handed out, or of this kit.
    """
    for name, text in (edition or _own_edition()).items():
        if name.endswith((".py", ".csv")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    for file in own_code(root):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / file, folder / file)
    outcome = sandbox.run(folder / "kit" / "handin" / "smoke_test.py", [], folder, seconds, trusted=trusted)
    tried = [Finding("code", "problem", f"it tried what no training needs: {sanitize(attempt)}")
             for attempt in outcome.attempts[:3]]
    results = _read_trial(sandbox.read_left(folder, "trial.json"))
    last = outcome.output.strip().splitlines()[-1:] or [""]
    limits = {"time": f"did not end within {seconds} seconds", "memory": "took more memory than there is for it",
              "disk": f"wrote more than {sandbox.DISK} MB or {sandbox.MOST_FILES} files",
              "threads": f"started more than {sandbox.MOST_THREADS} threads"}
    ended = limits.get(outcome.reason) or (
        None if {"networks", "training"} <= results.keys() or "error" in results.get("modules", {})
        else f"ended on its own, with status {outcome.status} ({sanitize(last[0])[:200]})")
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


def _own_edition():
    """What of this kit the code is tried with: name of the file → text."""
    home = KIT.parent
    files = [*home.glob("*.py"), *KIT.rglob("*.py"), *KIT.rglob("*.csv"), home / "tests" / "test_models.py"]
    return {file.relative_to(home).as_posix(): file.read_text(encoding="utf-8") for file in files}


def _read_trial(content):
    """What the trial wrote, as far as it has the right form; everything in it may be forged."""
    try:
        content, results = json.loads(content), {}
        for part in ("modules", "networks", "training"):
            if part in content:
                given = content[part]
                results[part] = {"error": sanitize(given["error"])[:400]} if "error" in given else {}
                if part == "networks" and "tests" in given:
                    results[part] = {"tests": [
                        {"test": sanitize(row["test"])[:100], "paper": row["paper"] is True,
                         "outcome": str(row["outcome"]), "why": sanitize(row["why"])[:300]}
                        for row in given["tests"][:200]]}
                if part == "training" and "phases" in given:
                    results[part] = {"phases": [sanitize(name)[:50] for name in given["phases"][:20]]}
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
