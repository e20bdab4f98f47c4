"""Checking the hand-ins of a whole class: several at once, resumable, a row for each.

What is looked at is `kit.handin.check`'s; their code runs in a sandbox.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from kit.console import Table, progress_bar
from kit.files import write_csv, write_whole
from kit.handin import sandbox
from kit.handin.check import check
from kit.handin.findings import Finding, as_dict, csv_safe, sanitize
from teacher import handout

FIELDS = ["handin", "complete", "problems", "notes", "psnr", "ssim", "findings"]


def check_all(folder, out, lists="data/lists", jobs=2, again=False, seconds=120, progress=True):
    """Check every zip and every folder in `folder`, and write the results to the folder `out`.

    Parameters
    ----------
    folder : path
        Each hand-in is called after its folder or its zip.
    out : path
        For `checks.csv`, a row for each; `<name>.json`, everything that was found; and `handins/<name>/`, a copy of its
        files, for `similarity` and `rating`.
    lists, seconds
        As for `kit.handin.check.check`.
    jobs : int
        How many are looked at at the same time.
    again : bool
        Check those again that were checked before; else only those that are new or have changed.

    Returns the rows, dictionaries of `FIELDS`. Raises ValueError when there is nothing to check or two hand-ins have
    one name, and OSError where this machine cannot run code of others safely.
    """
    entries = [path for path in sorted(Path(folder).iterdir()) if not path.name.startswith(".")]
    named, out = {}, Path(out)
    for path in entries:
        name = _name(path)
        if name in named:
            raise ValueError(f"{path} and {named[name]} have one name; rename one of them")
        named[name] = path
    if not named:
        raise ValueError(f"{folder}: holds no hand-ins, neither zips nor folders")
    sandbox.require()
    edition = handout.contents()
    done, todo = {}, []
    for name, path in named.items():
        try:
            digest = _digest(path)
        except (OSError, RecursionError):  # what is wrong with it will be said when it is checked
            digest = None
        old = None if again else _earlier(out / f"{name}.json", digest)
        done[name] = old
        todo += [] if old else [(name, path, digest)]
    with progress_bar(None, "checking", progress, total=len(named), initial=len(named) - len(todo)) as bar, \
            ThreadPoolExecutor(max(1, jobs)) as pool:
        working = {pool.submit(_check_one, path, out, name, digest, lists, seconds, edition): name
                   for name, path, digest in todo}
        try:
            for future in as_completed(working):
                done[working[future]] = future.result()
                bar.set_postfix_str(working[future][:30])
                bar.update()
        finally:
            pool.shutdown(cancel_futures=True)  # those that run end first; the others wait for the same call again
            rows = [_row(name, result) for name, result in done.items() if result]
            write_csv(out / "checks.csv", rows, FIELDS)
    return rows


def _check_one(path, out, name, digest, lists, seconds, edition):
    """Check one hand-in, whatever it is, and keep what was found."""
    copy = out / "handins" / name
    try:
        sandbox.remove(copy)
        findings, scores = check(path, lists, scratch=copy, seconds=seconds, edition=edition)
    except Exception as error:  # nothing that somebody hands in may stop the others
        findings, scores = [Finding("check", "problem", sanitize(
            f"could not be checked ({type(error).__name__}: {error})")[:300])], {}
    result = {"digest": digest, **as_dict(findings, scores)}
    with write_whole(out / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def _name(path):
    """What a hand-in is called: after its folder or zip, in letters that every file and table can have."""
    name = sanitize(path.name if path.is_dir() else path.stem)
    if len(name.encode()) > 80:
        name = f"{name[:20]} {hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]}"
    return name


def _digest(path):
    """What tells whether a hand-in has changed: the bytes of a zip, or names, sizes and times of a folder's files."""
    digest = hashlib.sha256()
    if path.is_file():
        with open(path, "rb") as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
    else:
        for place, _, names in os.walk(path):
            for name in sorted(names):
                about = os.lstat(os.path.join(place, name))
                digest.update(os.fsencode(os.path.join(place, name)) + b"\0%d %d" % (about.st_size, about.st_mtime_ns))
    return digest.hexdigest()


def _earlier(path, digest):
    """What an earlier call has found, if the hand-in is still the same."""
    try:
        result = json.loads(path.read_bytes())
        return result if result["digest"] == digest and isinstance(result["findings"], list) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _row(name, result):
    verdicts = [one["verdict"] for one in result["findings"]]
    said = "; ".join(f"{one['what']}: {one['text']}" for one in result["findings"] if one["verdict"] != "ok")
    digits = {key: f"{result[key]:.4f}" if key in result else "" for key in ("psnr", "ssim")}
    return {"handin": csv_safe(name), "complete": "yes" if result["complete"] else "no",
            "problems": verdicts.count("problem"), "notes": verdicts.count("note"), **digits,
            "findings": csv_safe(said)}


def class_table(rows):
    """The rows as a table: the hand-ins with problems first, each with the first of them."""
    rows = sorted(rows, key=lambda row: (-row["problems"], row["handin"]))
    return Table([[row["handin"], row["complete"], row["problems"], row["notes"], row["psnr"][:5], row["ssim"],
                   row["findings"][:70]] for row in rows],
                 ["hand-in", "complete", "problems", "notes", "PSNR", "SSIM", "findings"])
