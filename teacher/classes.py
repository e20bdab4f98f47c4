"""Checking the hand-ins of a whole class: several at once, resumable, a row for each.

What is looked at is `kit.handin.check`'s; their code runs in a sandbox.
"""

import hashlib
import json
import os
import re
import stat
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from kit.console import Table, progress_bar
from kit.files import (
    NoRoom,
    extract,
    is_no_room,
    members,
    require_room,
    waiting_lock,
    writable,
    write_csv,
    write_whole,
)
from kit.handin import sandbox
from kit.handin.check import check
from kit.handin.contents import NEEDED
from kit.handin.findings import Finding, NotTried, as_dict, sanitize
from kit.handin.opening import LARGEST, is_archive, is_junk
from kit.language import language
from teacher import handout
from teacher.roster import is_called, match
from teacher.submissions import is_handin, submissions, whose

FIELDS = ["handin", "student_id", "name", "platform_id", "late", "attempt", "complete", "problems", "notes", "psnr",
          "ssim", "findings"]
CELL = 30_000  # letters, of which spreadsheets take 32,767


def check_all(folder, out, lists="data/lists", jobs=2, again=False, seconds=120, progress=True, pattern=None,
              roster=None, vgg=None, execute=False):
    """Check the hand-ins of a class, of each student the newest, and write the results to the folder `out`.

    Parameters
    ----------
    folder : path
        A folder with a file or a folder for each student, as a platform's download is unpacked, or that download, an
        archive. Whose each is, is read from its name, see `teacher.submissions`.
    out : path
        For `checks.csv`, a row for each; `<name>.json`, everything that was found; and `handins/<name>/`, a copy of its
        files, for `similarity` and `rating`. What an earlier call left there of hand-ins that are gone is removed.
    pattern : str, optional
        Another regular expression for names.
    roster : list of dict, optional
        Who should have handed in, see `teacher.roster.read_roster`; those who have not get a row, too.
    lists, seconds, vgg, execute
        As for `kit.handin.check.check`.
    jobs : int
        How many are looked at at the same time.
    again : bool
        Check those again that were checked before; else only those that are new or have changed.

    Returns the rows, dictionaries of `FIELDS`. Raises ValueError when there is nothing to check, and OSError where this
    machine cannot run code of others safely.
    """
    out = Path(out)
    folder = _download(Path(folder), out, pattern) if Path(folder).is_file() else Path(folder)
    found, left_out = submissions(folder, pattern)
    if len(found) == 1 and _is_of_a_class(found[0].path):
        found, _ = submissions(_download(found[0].path, out, pattern), pattern)
    for name in left_out if progress else ():
        print(f"{sanitize(name)}: is no hand-in, left out")
    if not found:
        raise ValueError(f"{folder}: holds no hand-ins, neither zips nor folders")
    sandbox.require()
    out.mkdir(parents=True, exist_ok=True)
    with waiting_lock(out / ".lock", f"checking into {out}", progress):
        named = _named(found, out)
        for name, one in named.items() if progress else ():
            if one.older:
                older = ", ".join(sanitize(path.name) for path in one.older)
                print(f"{name}: the newest is looked at, and not {older}")
        graded = Path(lists, "Set5.csv")  # with another list pictures may get another verdict
        wanted = {language(), f"Set5 {_digest(graded)[:12] if graded.is_file() else 'without a list'}",
                  *(name for name, asked in (("vgg", vgg), ("execute", execute)) if asked)}
        done, todo = _outstanding(named, out, wanted, again)
        _remove_others(out, named)
        options = dict(lists=lists, seconds=seconds, edition=handout.contents(), vgg=vgg, execute=execute)
        with progress_bar(None, "checking", progress, total=len(named), initial=len(named) - len(todo)) as bar, \
                ThreadPoolExecutor(max(1, jobs)) as pool:
            working = {pool.submit(_check_one, named[name], out, name, digest, wanted, **options): name
                       for name, digest in todo.items()}
            try:
                for future in as_completed(working):
                    done[working[future]] = future.result()
                    bar.set_postfix_str(working[future][:30])
                    bar.update()
            finally:
                pool.shutdown(cancel_futures=True)  # those that run end first; the others wait for the same call again
                rows = [_row(name, named[name], result) for name, result in done.items() if result]
                others = _with_roster(rows, roster or [])
                rows += others if all(done.values()) else []  # else theirs may be among those that wait
                write_csv(out / "checks.csv", [{key: row[key] for key in FIELDS} for row in rows], FIELDS,
                          for_spreadsheets=True)
    return rows


def _outstanding(named, out, wanted, again):
    """What is known of each hand-in by an earlier call, name → result or None, and what is to do, name → digest."""
    done, todo = {}, {}
    for name, one in named.items():
        try:
            digest = _digest(one.path, one.names)
        except (OSError, RecursionError):  # what is wrong with it will be said when it is checked
            digest = None
        old = None if again or not digest else _earlier(out / f"{name}.json", digest)
        done[name] = old if old and wanted <= set(old.get("asked", [])) else None  # all was looked at that is asked now
        if not done[name]:
            todo[name] = digest
    return done, todo


def _with_roster(rows, roster):
    """Tell the rows what the class list knows of their students; gives rows for who has handed in nothing."""
    pairs, left = match(roster, rows)
    others = []
    for person, row in pairs:
        if row:
            row["student_id"] = row["student_id"] or person["student_id"]
            continue
        namesakes = any(is_called(person, other) for other in left)
        others.append({**dict.fromkeys(FIELDS, ""), **person,
                       "complete": "unclear" if namesakes else "missing", "problems": 0, "notes": 0,
                       "findings": "several are called so, and whose hand-in is whose cannot be told"
                                   if namesakes else "nothing was handed in"})
    return others


def _download(file, out, pattern=None):
    """A class's download, an archive, unpacked below `out`; once, so that its files keep their times.

    What is within a lone folder in it, unless that is a hand-in, by its name or because its files are in it.
    """
    if not is_archive(file):
        raise ValueError(f"{file}: is neither a folder nor an archive that can be opened here")
    target = out / "download" / _digest(file)[:16]
    if not target.is_dir():
        sandbox.remove(target.parent)
        work = target.with_suffix(".part")
        work.mkdir(parents=True)
        with members(file) as entries:
            entries = [entry for entry in entries if not is_junk(entry[0])]
            wrong = [f"{sanitize(name)[:100]}, {problem}" for name, _, problem, _ in entries if problem]
            if wrong:
                sandbox.remove(work)
                raise ValueError(f"{file}: cannot be unpacked here, for it holds {'; '.join(wrong[:3])}; unpack it by "
                                 f"hand, and give the folder")
            require_room(out, sum(size for _, size, _, _ in entries), "unpacking the download", "choose another --out")
            extract(entries, work)
        work.rename(target)
    inner = [path for path in target.iterdir() if not is_junk(path.name)]
    if len(inner) != 1 or not inner[0].is_dir() or is_handin(inner[0], pattern):
        return target
    return target if any((inner[0] / name).exists() for name in NEEDED) else inner[0]


def _is_of_a_class(file):
    """Whether something is an archive that holds those of several, as a platform's download does."""
    if not isinstance(file, Path) or not is_archive(file):
        return False
    try:
        with members(file) as entries:
            return sum(is_archive(name) and not is_junk(name) for name, *_ in entries) > 1
    except (OSError, ValueError, zipfile.BadZipFile, tarfile.TarError):
        return False


def _remove_others(out, named):
    """Remove what earlier calls have kept of hand-ins that are not there any more: they would be rated and graded.

    Raises ValueError where not one of them is there any more: then it is probably another folder that was meant.
    """
    kept = {file.stem: file for file in out.glob("*.json") if _earlier(file) is not None}
    if kept and not named.keys() & kept.keys():
        raise ValueError(f"{out} has the results of {len(kept)} other hand-ins, such as {min(kept)!r}; give another "
                         f"--out, or remove it first")
    for copy in (out / "handins").glob("*") if (out / "handins").is_dir() else ():
        if copy.name not in named:
            sandbox.remove(copy)
    for name in kept.keys() - named.keys():
        kept[name].unlink()


def _check_one(one, out, name, digest, wanted, **options):
    """Check one hand-in, whatever it is, and keep what was found."""
    copy = out / "handins" / name
    try:
        sandbox.remove(copy)
        handin = dict(zip(one.path, one.names)) if isinstance(one.path, list) else one.path
        findings, scores = check(handin, scratch=copy, **options)
    except (Exception, SystemExit) as error:  # nothing that somebody hands in may stop the others
        if is_no_room(error):
            raise NoRoom(f"{out}: the disk is full; make room, and the same command goes on") from error
        findings, scores = [Finding("check", "problem", sanitize(
            f"could not be checked ({type(error).__name__}: {error})")[:300])], {}
    again = any(isinstance(found, NotTried) for found in findings)  # the next call looks once more
    result = {"digest": digest, "asked": [] if again else sorted(wanted), "whose": list(whose(one)),
              **as_dict(findings, scores)}
    with write_whole(out / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def _named(found, out):
    """Hand-ins by what they are called: name → Submission. Who had a name in an earlier call keeps it."""
    results = {file.stem: _earlier(file) for file in out.glob("*.json")}
    earlier = {tuple(result["whose"]): name for name, result in results.items() if result and "whose" in result}
    named, taken = {}, set(earlier.values())
    for one in found:
        name = earlier.pop(whose(one), None) or _name(one, taken)
        named[name] = one
        taken.add(name)
    return named


def _name(one, taken):
    """What a hand-in is called: after its student, in letters that every file and table can have; no other has it."""
    first = one.path[0] if isinstance(one.path, list) else one.path
    name = sanitize("_".join(filter(None, [one.student_id, one.name])) or first.stem)
    name = re.sub(r'[<>:"/\\|?*]', "_", writable(name))  # (what Windows refuses)
    if name.lower() in map(str.lower, taken) and one.platform_id:
        name += f"_{one.platform_id}"
    if len(name.encode()) > 80 or name.lower() in map(str.lower, taken):
        name = f"{name[:20]} {hashlib.sha256(os.fsencode(first.name)).hexdigest()[:8]}"
    return name


def _digest(path, names=()):
    """What tells whether a hand-in has changed: its bytes, and the names of several files, or of a folder's in it."""
    digest = hashlib.sha256()
    if isinstance(path, list):
        return hashlib.sha256(" ".join([*map(_digest, path), *names]).encode(errors="surrogateescape")).hexdigest()
    if path.is_file():
        with open(path, "rb") as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
    else:
        for place, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                file = Path(place, name)
                about = file.lstat()
                digest.update(os.fsencode(file.relative_to(path)) + b"\0%d" % about.st_size)
                if stat.S_ISREG(about.st_mode) and about.st_size <= LARGEST * 2**20:  # a larger one is not opened
                    digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _earlier(path, digest=None):
    """What an earlier call has found, if the hand-in is still the same (of whatever digest, without one)."""
    try:
        result = json.loads(path.read_bytes())
        return result if result["digest"] == (digest or result["digest"]) and isinstance(result["findings"], list) \
            else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _row(name, one, result):
    verdicts = [one["verdict"] for one in result["findings"]]
    said = "; ".join(f"{one['what']}: {one['text']}" for one in result["findings"] if one["verdict"] != "ok")
    digits = {key: f"{result[key]:.4f}" if key in result else "" for key in ("psnr", "ssim")}
    return {"handin": name, **{key: getattr(one, key) for key in ("student_id", "name", "platform_id", "attempt")},
            "late": "yes" if one.late else "", "complete": "yes" if result["complete"] else "no",
            "problems": verdicts.count("problem"), "notes": verdicts.count("note"), **digits,
            "findings": said if len(said) < CELL else f"{said[:CELL]}…"}


def class_table(rows):
    """The rows as a table: the hand-ins with problems first, each with the first of them."""
    rows = sorted(rows, key=lambda row: (-row["problems"], row["handin"]))
    return Table([[row["handin"], row["complete"], row["problems"], row["notes"], rounded(row["psnr"]), row["ssim"],
                   row["findings"][:70]] for row in rows],
                 ["hand-in", "complete", "problems", "notes", "PSNR", "SSIM", "findings"])


def rounded(number, digits=2):
    """A number of a table, if it is there, with fewer digits."""
    return number and f"{float(number):.{digits}f}"
