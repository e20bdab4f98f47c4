"""Trying the code of a hand-in in the sandbox, and what came of it."""

import ast
import importlib.util
import json
import re
import shutil
from contextlib import suppress
from pathlib import Path

from kit.files import KIT
from kit.handin import sandbox
from kit.handin.contents import NOT_OWN, RESULT, own_code
from kit.handin.findings import NOT_HERE, Finding, NotTried, sanitize
from kit.handin.texts import JSON, text_of
from kit.language import LOCALE, language, tr
from kit.settings.content_loss import PIXEL_TERMS, content_terms
from kit.settings.schema import SECTIONS, SETTINGS, current_names

TESTS = "tests/test_models.py"


def check_code(root, folder, trusted, seconds, edition=None, vgg=None):
    """Whether its networks and its training work: the tests of networks and a few updates, in a sandbox.

    They are tried in the new folder `folder`, the tests beside it, where no code of the student's can write: that code
    with the machinery and the tests of the student edition that was handed out, or of this kit, and with the settings
    of the run that was handed in. `vgg` is a file of VGG's weights under torchvision's name, for losses that need them.
    """
    edition = edition or _own_edition()
    findings, readable = prepare(root, folder, edition, vgg)
    (folder / "trial_settings.json").write_text(json.dumps(settings_of(root, vgg)), encoding="utf-8")
    tests = folder.with_name(f"{folder.name}_tests")
    tests.mkdir()
    (tests / "test_models.py").write_text(edition.get(TESTS, ""), encoding="utf-8")
    outcome = sandbox.run(folder / "kit" / "handin" / "smoke_test.py", [str(tests / "test_models.py")], folder, seconds,
                          trusted=trusted, readable=[*readable, tests])
    if outcome.reason == "server":
        return [*findings, NotTried("code", "note", tr("it was not tried: the system has ended what it was tried in, "
                                                       "for want of memory perhaps; check it again"))]
    tried = [Finding("code", "problem", tr("it tried what no training needs: {attempt}", attempt=sanitize(attempt)))
             for attempt in outcome.attempts[:3]]
    results = _read_trial(sandbox.read_left(folder, "trial.json", outcome.word))
    last = outcome.output.strip().splitlines()[-1:] or [""]
    limits = {"time": tr("it did not end within {seconds} seconds", seconds=seconds),
              "memory": tr("it took more memory than there is for it"),
              "disk": tr("it wrote more than {size} MB or {count} files", size=sandbox.DISK, count=sandbox.MOST_FILES),
              "threads": tr("it started more than {count} threads", count=sandbox.MOST_THREADS)}
    ended = limits.get(outcome.reason) or (
        None if {"networks", "training"} <= results.keys() or "error" in results.get("modules", {})
        else tr("it ended on its own, with status {status} ({last})", status=outcome.status,
                last=sanitize(last[0])[:200]))
    training = results.get("training", {})
    if "error" in results.get("modules", {}):
        error = results["modules"]["error"]
        if lacking := _lacking_package(error, root):
            findings.append(NotTried("code", "note", tr(
                "it was not tried: it asks for the package {package}, which is not installed here; if you know that "
                "package, install it to try the code", package=lacking)))
            return [*findings, *tried]
        findings.append(Finding("code", "problem", tr("it cannot be imported: {error}", error=error)))
    findings += _on_networks(results.get("networks"), _names_of_tests(edition.get(TESTS, "")))
    if NOT_HERE in training.get("error", ""):
        findings.append(Finding("training", "note", tr("it was not tried: it needs weights that are not here")))
    elif "error" in training:
        findings.append(Finding("training", "problem", tr("a training of a few updates failed: {error}", **training)))
    elif training.get("phases") and training["own"]:
        findings.append(Finding("training", "note", tr(
            "its Trainer is of its own, so whether it trains was not looked at here: read it")))
    elif training.get("phases"):
        findings.append(Finding("training", "ok", tr("a few updates of {phases} ran",
                                                     phases=", ".join(training["phases"]))))
    if ended:
        findings.append(Finding("code", "problem", ended))
    return [*findings, *tried]


def prepare(root, folder, edition=None, vgg=None):
    """Put a kit, a student's own code and VGG's weights into the new folder `folder`, for the sandbox.

    Returns (list of Finding, files elsewhere that it may read).
    """
    for name, text in (edition or _own_edition()).items():
        if name.endswith((".py", ".csv", ".html")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    for file in LOCALE.rglob("*.mo"):
        target = folder / "kit" / "locale" / file.relative_to(LOCALE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    (folder / "kit" / "locale" / "language.txt").write_text(language(), encoding="utf-8")
    own = own_code(root)
    installed = {name for name in {file.parts[0] for file in own if len(file.parts) > 1} if _is_installed(name)}
    findings = [Finding("code", "note", tr("its folder {name} is called like an installed package, which is what was "
                                           "tried", name=sanitize(name))) for name in sorted(installed)]
    for file in own:  # (a folder may be called like one of the kit's files)
        if file.parts[0] not in installed and not any((folder / place).is_file() for place in file.parents):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / file, folder / file)
    if vgg:  # where PyTorch keeps what it has downloaded; a link, for a copy could be changed, and takes long
        kept = folder / sandbox.HOME / "hub" / "checkpoints"
        kept.mkdir(parents=True)
        (kept / Path(vgg).name).symlink_to(Path(vgg).resolve())
    return findings, [Path(vgg).resolve()] if vgg else []


def settings_of(root, vgg=None):
    """The settings of the run that was handed in, as far as they say how its networks are built and trained.

    A stranger's file: what is no setting, or no value that it may have, counts as not said. Without the weights of VGG
    the content loss is the MSE where it needs them.
    """
    try:
        run = json.loads(text_of(root / RESULT / "result.json", JSON))["run"]
        record = text_of(root / "runs" / Path(str(run)).name / "settings.json", JSON)
        said = current_names(json.loads(record)[-1]["settings"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        said = {}
    names = [*SECTIONS["generator"], *SECTIONS["discriminator"], *SECTIONS["losses and updates"], "crop",
             "channels_last", "colour_jitter", "jpeg_noise"]
    given = {name: said[name] for name in names if name in said and SETTINGS[name].check.holds(said[name])}
    if given.get("crop", 0) > 128 or given.get("scale", 4) != 4:  # the photograph is too small, or the set another
        given.pop("crop", None)
    given.pop("vgg_weights", None)
    if not vgg and any(name not in PIXEL_TERMS for name in content_terms(given.get("content_loss", "mse"))):
        given["content_loss"] = "mse"  # its features are not here
    return given


def _is_installed(name):
    """Whether a package of this name is installed, or Python's own, and not one of the kit's folder."""
    if not name.isidentifier():  # of one with dots `find_spec` would import the first parts, here, outside all walls
        return False
    with suppress(ImportError, ValueError):
        found = importlib.util.find_spec(name)
        place = Path(found.origin or KIT) if found else KIT
        return KIT.parent not in place.parents or "site-packages" in place.parts
    return False


def _lacking_package(error, root):
    """The package that code asks for and that is not installed, by the error of its import; None if it is another."""
    found = re.search(r"ModuleNotFoundError: No module named '([A-Za-z]\w*)", error)
    mine = found and ((root / found[1]).exists() or (root / f"{found[1]}.py").exists())
    return found[1] if found and not mine and found[1] not in NOT_OWN else None


def _own_edition():
    """What of this kit the code is tried with: name of the file → text."""
    home = KIT.parent
    files = [*home.glob("*.py"), *KIT.rglob("*.py"), *KIT.rglob("*.csv"), *KIT.rglob("*.html"), home / TESTS]
    # (A student's own files, in whatever encoding, are copied as they are in their place.)
    return {file.relative_to(home).as_posix(): file.read_text(encoding="utf-8", errors="replace") for file in files}


def _read_trial(content):
    """What the trial wrote, as far as it has the right form: names and messages in it are a stranger's."""
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
                    results[part] = {"phases": [sanitize(name)[:50] for name in given["phases"][:20]],
                                     "own": given.get("own") is not False}
        return results
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _names_of_tests(source):
    """The names of the tests in a file: what has to be among the results, whatever the code of a hand-in does."""
    return {node.name for node in ast.parse(source).body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def _on_networks(networks, wanted):
    if not networks or not networks.get("tests", ["error"]):
        return [Finding("networks", "problem", tr("none of their tests was run"))]
    if "error" in networks:
        return [Finding("networks", "problem", networks["error"])]
    if left := wanted - {row["test"].partition("[")[0] for row in networks["tests"]}:
        return [Finding("networks", "problem", tr("{count} of their {all} tests were not run, such as {name}",
                                                  count=len(left), all=len(wanted),
                                                  name=min(left).removeprefix("test_").replace("_", " ")))]
    failed = [row for row in networks["tests"] if row["outcome"] == "failed"]
    passed = sum(row["outcome"] == "passed" for row in networks["tests"])
    reasons = {}  # a function that is missing fails many tests
    for row in failed:
        reasons.setdefault((row["why"], row["paper"]), []).append(row["test"].removeprefix("test_").replace("_", " "))
    findings = [Finding("networks", "note" if paper else "problem", f"{why or tr('not so')}: {names[0]}"
                        + (tr(", and {count} more", count=len(names) - 1) if len(names) > 1 else ""))
                for (why, paper), names in reasons.items()]
    text = tr("{passed} of {all} tests passed", passed=passed, all=len(networks["tests"]))
    if any(row["paper"] for row in failed):
        text += tr(" (a note is about what the paper has otherwise)")
    return [*findings, Finding("networks", "problem" if not passed else "note" if failed else "ok", text)]
