"""The command `python -m kit enlarge`: pictures made larger, for people who want nothing else."""

import hashlib
import json
import os
import sys
from contextlib import redirect_stdout, suppress
from functools import partial
from io import StringIO
from pathlib import Path

from kit.compute.device import Machine
from kit.console import Parser, did_you_mean, printable, progress_bar
from kit.evaluation.generators import load_generator
from kit.files import KIT, NoRoom, full_disk_told, remove_left_over, require_writable, result_names, waiting_lock
from kit.language import tr
from kit.photographs import ENDINGS, LARGEST, enlarge_photograph, read_photograph, save_photograph
from kit.picture_files import SUFFIXES, UNREADABLE, size_of
from kit.runs.history import checkpoints, current_run
from utils import Enlarger

WEIGHTS = KIT.parent / "weights"
NAMES = {"srgan": "srgan.safetensors", "srresnet": "srresnet.safetensors"}


def main(arguments=None, prog="python -m kit enlarge"):
    """The command `python -m kit enlarge`; ends with 1 where a picture could not be enlarged."""
    parser = Parser(
        prog=prog, description="Enlarge pictures, whole folders too; what is done already is passed over, unless the "
        "picture or what is asked for has changed. Photographs in other colours than sRGB come out in sRGB, turned as "
        "they are seen, with their EXIF (a PNG's texts stay in PNG); what is transparent stays so (in JPEG on white), "
        "grey stays grey, 16 bits become 8. Animations, HEIC and damaged pictures are named and left out; other files "
        "in a folder, and links to folders, are passed over.",
        epilog=f"Example: {prog} holidays --out larger --format jpeg")
    parser.add_argument("what", nargs="+", help="picture files, and folders, with all folders in them")
    parser.add_argument("--out", default="enlarged", metavar="DIR", help="folder for the results, which keeps a list "
                        "of what each was made of, .enlarged.jsonl (default: %(default)s)")
    add_weights(parser, "--weights", metavar="WHICH")
    parser.add_argument("--format", choices=ENDINGS, default="png", help="default: %(default)s")
    parser.add_argument("--quality", type=int, default=92, metavar="N", help="of jpeg and webp, 1 to 100 (default: "
                        "%(default)s)")
    parser.add_argument("--tile", type=int, metavar="N", help="largest side that the network sees at once, in pixels; "
                        "without it what memory allows")
    parser.add_argument("--device", default="auto", help="cpu, cuda or mps (default: the best there is)")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="of the network's "
                        "numbers; bf16 is quicker where the hardware has it, which auto takes, and a few of 255 grey "
                        "values from fp32")
    parser.add_argument("--self-ensemble", action="store_true", help="the mean of eight flips and turns: a little "
                        "better, in eight times the time")
    options = parser.parse_args(arguments)
    try:
        if not 1 <= options.quality <= 100:
            raise ValueError(f"--quality must be from 1 to 100, not {options.quality}")
        weights, device = weights_file(options.weights), Machine(options.device).device
        enlarge = Enlarger(load_generator(weights, device), tile=options.tile, precision=options.precision,
                           self_ensemble=options.self_ensemble)
        if enlarge.note:
            print(enlarge.note)
        left_out = enlarge_all(options.what, options.out, enlarge, options.format, options.quality,
                               how=[_digest(weights), options.precision, options.self_ensemble])
    except (ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: error: {printable(error)}")
    except KeyboardInterrupt:
        sys.exit(tr("stopped; what is done is kept, and the same command goes on from there"))
    sys.exit(1 if left_out else 0)


def enlarge_all(what, out, enlarge, kind="png", quality=92, how=(), progress=True):
    """Enlarge files and folders into the folder `out`; gives (file, reason) of what could not be.

    A folder's own folders are kept in `out`. What the journal there has as made of the same picture in the same way
    is passed over; `how`, of plain values, says in which, beside kind and quality. Raises ValueError where there is no
    picture and where results would overwrite pictures, FileNotFoundError for what is not there, and OSError for a
    folder that cannot be written to and a full disk.
    """
    out = Path(out).expanduser()
    jobs, left_out = jobs_of(what, out, ENDINGS[kind])
    require_writable(out)  # before minutes are spent
    with waiting_lock(out / ".enlarged.lock", tr("enlarging"), progress):
        return _enlarge_jobs(jobs, left_out, out, enlarge, kind, quality, how, progress)


def _enlarge_jobs(jobs, left_out, out, enlarge, kind, quality, how, progress):
    for folder in {target.parent for _, target in jobs}:
        remove_left_over(folder, hours=1)
    journal, waiting, done = Journal(out, [kind, kind == "png" or quality, *how]), [], 0
    for path, target in jobs:
        try:
            if journal.has(path, target):
                done += 1
            else:
                waiting.append((path, target, size_of(path)))
        except (ValueError, OSError) as error:
            left_out.append((path, _reason(path, error)))
    for path, reason in left_out:
        print(printable(f"{path}: {reason}"))
    if done:
        print(tr("{count} are done already", count=done))
    made = 0
    with progress_bar(None, tr("enlarging"), progress, total=sum(w * h for *_, (w, h) in waiting), unit="px",
                      unit_scale=True) as bar:
        for path, target, size in waiting:
            bar.set_postfix_str(printable(path.name[:30]))
            try:
                _require_possible(size, enlarge.scale, kind)
                with redirect_stdout(StringIO()) as told:  # (it would stand in the middle of the bar)
                    photograph = enlarge_photograph(read_photograph(path), enlarge)
                    save_photograph(target, photograph, kind, quality, partial(journal.note, path, target))
                for line in told.getvalue().splitlines():
                    bar.write(printable(line), file=sys.stdout)
                made += 1
            except NoRoom:
                raise
            except Exception as error:  # whatever it is, the others are enlarged
                left_out.append((path, _reason(path, error)))
                bar.write(printable(f"{path}: {left_out[-1][1]}"), file=sys.stdout)
            bar.update(size[0] * size[1])
    print(tr("{count} enlarged, in {folder}", count=made, folder=printable(out))
          + (tr("; {count} could not be, see above", count=len(left_out)) if left_out else ""))
    return left_out


def _reason(path, error):
    """What an error says of a picture, in a line, without its name."""
    text = str(error).removeprefix(f"{path}: ")
    return (text.splitlines() or [tr("memory ran out") if isinstance(error, MemoryError) else type(error).__name__])[0]


def _require_possible(size, scale, kind):
    """Raise ValueError for a picture whose enlargement the format or the memory cannot hold."""
    width, height = size[0] * scale, size[1] * scale
    if max(width, height) > LARGEST.get(kind, max(width, height)):
        raise ValueError(f"would become {width}×{height}, and a {kind} has at most {LARGEST[kind]} pixels a side; "
                         f"choose --format png")
    needed, memory = 8 * width * height, Machine("cpu").memory  # (its colours twice, its transparency twice)
    if needed > memory:
        raise ValueError(f"would become {width}×{height}, for which {needed / 1e9:.0f} GB of memory are needed, and "
                         f"there are {memory / 1e9:.0f}; cut it into parts")


class Journal:
    """What the results in a folder were made of, and how: which of them are done, and which are somebody else's.

    A file of lines, one for each result that was ever written there, added before the result has its name. What is not
    just as such a line says has been made, or changed, by somebody else.
    """

    def __init__(self, folder, how):
        self.folder, self.file = Path(folder), Path(folder) / ".enlarged.jsonl"
        self.lines, self._digests = {}, {}
        self.how = hashlib.sha256(json.dumps(how).encode()).hexdigest()
        try:
            self._add("")  # before minutes are spent
            text = self.file.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise OSError(f"{self.file}: cannot be read and written ({error.strerror}); move it, or choose another "
                          f"--out") from error
        for line in text.splitlines():
            with suppress(ValueError, TypeError, KeyError, RecursionError):  # one that was cut off
                entry = json.loads(line)
                self.lines[entry["result"], entry["made"]] = entry

    def has(self, path, target):
        """Whether a result is there that was made of just this picture, in this way.

        Raises FileExistsError for a result's place that something else has.
        """
        digest = self._digests[path] = _digest(path)
        if not (target.exists() or target.is_symlink()):
            return False
        known = target.is_file() and self.lines.get((self._name(target), _digest(target)))
        if not known:
            raise FileExistsError(f"{target} is there already, and not as this command has made it; move it, or choose "
                                  f"another --out")
        same_picture = known.get("digest") == digest
        if not same_picture and known.get("picture") != os.path.realpath(path):
            raise FileExistsError(f"{target} is there already, made of {known.get('picture')}; move it, or choose "
                                  f"another --out")
        return same_picture and known.get("how") == self.how

    def note(self, path, target, written):
        """Note what a result that is `written`, and has not its name yet, was made of: the picture that `has` saw."""
        self._add("\n" + json.dumps({"result": self._name(target), "made": _digest(written), "how": self.how,
                                     "picture": os.path.realpath(path), "digest": self._digests[path]}))

    def _add(self, text):
        with full_disk_told(self.file), open(self.file, "a", encoding="utf-8") as file:
            file.write(text)  # (in a line of its own, for the last one may have been cut off)

    def _name(self, target):
        return target.relative_to(self.folder).as_posix()


def _digest(path):
    """The SHA-256 of a file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")  # (a link to nothing)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def jobs_of(what, out, ending):
    """[(picture, where its result goes)] of files and folders, and [(path, reason)] of what is left out.

    Left out are folders that cannot be read, and pictures whose result would have the place of another's. Hidden files,
    and what is in `out`, do not count. Of several folders each has one of its name in `out`. Raises what `enlarge_all`
    raises of pictures.
    """
    named, left_out = [_as_named(name) for name in what], []
    found, done = {}, Path(os.path.realpath(out))  # the picture as it is on disk → as it is named, its result's name
    several = sum(path.is_dir() for path in named) > 1
    for path in named:
        if path.is_dir():
            def tell(error):
                left_out.append((Path(error.filename), error.strerror))

            files = [Path(folder, name) for folder, _, names in os.walk(path, onerror=tell) for name in names]
            for file in sorted(filter(_may_be_picture, files)):
                place, real = file.relative_to(path), Path(os.path.realpath(file))
                if done not in real.parents and not any(part.startswith(".") for part in place.parts):
                    found.setdefault(real, (file, Path(path.resolve().name, place) if several else place))
        else:
            found.setdefault(Path(os.path.realpath(path)), (path, Path(path.name)))
    if not found and not left_out:
        raise ValueError(f"there is no picture in {', '.join(map(str, what))} (what is in {out}, where results go, "
                         f"does not count)")
    pictures, places = zip(*found.values()) if found else ((), ())
    jobs, taken = {}, {}
    for path, target in zip(pictures, (out / name for name in result_names(places, ending))):
        other = taken.setdefault(str(target).lower(), path)  # (there are systems that know one case only)
        if other == path:
            jobs[path] = target
        else:
            left_out.append((path, tr("would become {target}, as {other} does; enlarge it with another --out",
                                      target=target, other=other)))
        if os.path.realpath(target) == os.path.realpath(path):
            raise ValueError(f"{target}: the picture itself would be overwritten; choose another --out")
    return list(jobs.items()), left_out


def _as_named(name):
    """The path of a file or folder that is there, its ~ resolved (where no shell has done so)."""
    path = Path(name)
    with suppress(RuntimeError):  # there is no user of that name
        path = path if path.exists() else path.expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{name}: there is no such file or folder")
    return path


def _may_be_picture(file):
    """Whether a file of a folder has a picture in it, or is called as if it had; a link to nothing, too."""
    called = file.suffix.lower() in SUFFIXES | UNREADABLE.keys()
    return file.is_file() and (called or size_of(file) != (0, 0)) or called and file.is_symlink() and not file.exists()


def add_weights(parser, name, **options):
    """Give a parser the argument that says which weights are meant; `weights_file` finds their file."""
    parser.add_argument(name, help="srgan or srresnet, which come with the kit, or the file of a checkpoint; without "
                        "it srgan, or else the newest generator of the chosen run", **options)


def weights_file(which):
    """The file that is meant by "srgan", "srresnet", the name of a file, or None."""
    ours = {name: WEIGHTS / file for name, file in NAMES.items() if (WEIGHTS / file).is_file()}
    if which in ours or which is None and "srgan" in ours:
        return ours[which or "srgan"]
    if which:
        if not Path(which).is_file():
            raise ValueError(f"{which}: there are no such weights{did_you_mean(which, ours)}; name "
                             f"{', '.join([*ours, 'the file of a checkpoint'])}")
        return Path(which)
    run = current_run()
    if run is None:
        raise ValueError("there is no trained network yet: train first, or name a checkpoint with --weights")
    return Path(list(checkpoints(run).values())[-1])
