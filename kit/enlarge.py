"""The command `python -m kit enlarge`: pictures made larger, for people who want nothing else."""

import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from kit.console import Parser, progress_bar
from kit.evaluation.generators import load_generator
from kit.files import KIT, NoRoom, remove_left_over, require_writable, result_names
from kit.language import tr
from kit.photographs import ENDINGS, enlarge_photograph, read_photograph, save_photograph
from kit.picture_files import pixels_of
from kit.runs.history import checkpoints, current_run
from utils import Enlarger

WEIGHTS = KIT.parent / "weights"
NAMES = {"srgan": "srgan.safetensors", "srresnet": "srresnet.safetensors"}


def main(arguments=None, prog="python -m kit enlarge"):
    """The command `python -m kit enlarge`; ends with 1 where a picture could not be enlarged."""
    parser = Parser(
        prog=prog, description="Enlarge pictures, whole folders too; what is done already is passed over. Photographs "
        "in other colours than sRGB come out in sRGB, turned as they are seen, with their EXIF and texts; what is "
        "transparent stays so (in JPEG on white), grey stays grey, 16 bits become 8. Animations, HEIC and what is no "
        "picture are named and left out.", epilog=f"Example: {prog} holidays --out larger --format jpeg")
    parser.add_argument("what", nargs="+", help="picture files, and folders, with all folders in them")
    parser.add_argument("--out", default="enlarged", metavar="DIR", help="folder for the results (default: "
                        "%(default)s)")
    add_weights(parser, "--weights", metavar="WHICH")
    parser.add_argument("--format", choices=ENDINGS, default="png", help="default: %(default)s")
    parser.add_argument("--quality", type=int, default=92, metavar="N", help="of jpeg and webp, 1 to 100 (default: "
                        "%(default)s)")
    parser.add_argument("--tile", type=int, metavar="N", help="largest side that the network sees at once, in pixels; "
                        "without it what memory allows")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (default: %(default)s)")
    parser.add_argument("--self-ensemble", action="store_true", help="the mean of eight flips and turns: a little "
                        "better, in eight times the time")
    options = parser.parse_args(arguments)
    try:
        if not 1 <= options.quality <= 100:
            raise ValueError(f"--quality must be from 1 to 100, not {options.quality}")
        generator = load_generator(weights_file(options.weights), options.device)
        enlarge = Enlarger(generator, tile=options.tile, self_ensemble=options.self_ensemble)
        if enlarge.note:
            print(enlarge.note)
        left_out = enlarge_all(options.what, options.out, enlarge, options.format, options.quality)
    except (ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: error: {error}")
    except KeyboardInterrupt:
        sys.exit(tr("stopped; what is done is kept, and the same command goes on from there"))
    sys.exit(1 if left_out else 0)


def enlarge_all(what, out, enlarge, kind="png", quality=92, progress=True):
    """Enlarge files and folders into the folder `out`; gives (file, reason) of what could not be.

    A folder's own folders are kept in `out`. A result that is newer than its picture is passed over. Raises ValueError
    where results would overwrite pictures, FileNotFoundError for what is not there, and OSError for a folder that
    cannot be written to and a full disk.
    """
    jobs = jobs_of(what, Path(out), ENDINGS[kind])
    require_writable(out)  # before minutes are spent
    for folder in {target.parent for _, target in jobs}:
        remove_left_over(folder, hours=1)
    waiting = [(path, target, pixels_of(path)) for path, target in jobs
               if not target.is_file() or target.stat().st_mtime < path.stat().st_mtime]
    if done := len(jobs) - len(waiting):
        print(tr("{count} are done already", count=done))
    left_out = []
    with progress_bar(None, tr("enlarging"), progress, total=sum(size for *_, size in waiting), unit="px",
                      unit_scale=True) as bar:
        for path, target, size in waiting:
            bar.set_postfix_str(path.name[:30])
            try:
                with redirect_stdout(StringIO()) as told:  # (it would stand in the middle of the bar)
                    photograph = read_photograph(path)
                if told.getvalue():
                    bar.write(told.getvalue().rstrip(), file=sys.stdout)
                save_photograph(target, enlarge_photograph(photograph, enlarge), kind, quality)
            except NoRoom:
                raise
            except (ValueError, OSError) as error:
                left_out.append((path, str(error).removeprefix(f"{path}: ")))
                bar.write(f"{path}: {left_out[-1][1]}", file=sys.stdout)
            bar.update(size)
    print(tr("{count} enlarged, in {folder}", count=len(waiting) - len(left_out), folder=out)
          + (tr("; {count} could not be, see above", count=len(left_out)) if left_out else ""))
    return left_out


def jobs_of(what, out, ending):
    """(picture, where its result goes) of files and folders; hidden files, and what is in `out`, do not count.

    Of several folders each has one of its name in `out`.
    """
    found, done = {}, out.resolve()  # the picture as it is on disk → as it is named, and as its result is to be
    several = sum(Path(name).expanduser().is_dir() for name in what) > 1
    for name in what:
        path = Path(name).expanduser()
        if path.is_file():
            found.setdefault(path.resolve(), (path, Path(path.name)))
        elif path.is_dir():
            for file in sorted(file for file in path.rglob("*") if file.is_file()):
                place = file.relative_to(path)
                if done not in file.resolve().parents and not any(part.startswith(".") for part in place.parts):
                    place = Path(path.resolve().name, place) if several else place
                    found.setdefault(file.resolve(), (file, place))
        else:
            raise FileNotFoundError(f"{name}: there is no such file or folder")
    pictures, places = zip(*found.values()) if found else ((), ())
    jobs, taken = [(path, out / name) for path, name in zip(pictures, result_names(places, ending))], {}
    for path, target in jobs:
        other = taken.setdefault(str(target).lower(), path)
        if other != path:
            raise ValueError(f"{other} and {path} would both become {target}; enlarge them one after the other, with "
                             f"another --out")
        if target.resolve() == path.resolve():
            raise ValueError(f"{target}: the picture itself would be overwritten; choose another --out")
    return jobs


def add_weights(parser, name, **options):
    """Give a parser the argument that says which weights are meant; `weights_file` finds their file."""
    parser.add_argument(name, help="srgan or srresnet, which come with the kit, or the file of a checkpoint; without "
                        "it srgan, or else the newest generator of the chosen run", **options)


def weights_file(which):
    """The file that is meant by "srgan", "srresnet", the name of a file, or None."""
    if which in NAMES or which is None and (WEIGHTS / NAMES["srgan"]).is_file():
        return WEIGHTS / NAMES[which or "srgan"]
    if which:
        return which
    run = current_run()
    if run is None:
        raise ValueError("there is no trained network yet: train first, or name a checkpoint with --weights")
    return list(checkpoints(run).values())[-1]
