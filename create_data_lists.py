"""From folders of pictures to the CSV lists that training and testing read. Run with `--help`.

One CSV file per set, one picture per line: `hr` and `lr` (files, relative to the CSV file; `lr` is empty
where the low resolution is to be made with `imresize`), `scale`, and `width` and `height` of the high
resolution after cutting it to a multiple of the scale; `left` and `top` say where it is cut (faces only).
Every picture is opened and checked first.
"""

import csv
import os
import re
import sys
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kit.console import Parser, Table, progress_bar
from kit.data.download import ARCHIVES, download
from kit.data.pairing import MOST_PIXELS, PixelBudget, check_pair, find_pairs, picture_files, read_list_file
from kit.files import write_csv
from kit.language import tr

FIELDS = ["hr", "lr", "scale", "width", "height", "left", "top"]

# The test sets of the assignment and how the public archives name their folders, below a data folder.
TEST_SETS = {
    "DIV2K_valid": ["DIV2K_valid_HR", "DIV2K/DIV2K_valid_HR"],
    "Set5": ["benchmark/Set5", "Set5"],
    "Set14": ["benchmark/Set14", "Set14"],
    "B100": ["benchmark/B100", "B100", "BSD100", "BSDS100"],
    "Urban100": ["benchmark/Urban100", "Urban100"],
}
TRAINING_SETS = ["DIV2K_train_HR", "DIV2K/DIV2K_train_HR"]
TRAINING_LISTS = ["train", "demo_train", "celeba_train"]
DEMO_LISTS = ["demo_train", "demo_test"]

# Photographs inside the scikit-image package, and its colour wheel, because they are short of colours. The
# held-out four are what the demo is graded on.
DEMO_TRAIN = ["motorcycle_left.png", "motorcycle_right.png", "rocket.jpg", "hubble_deep_field.jpg", "ihc.png",
              "retina.jpg", "brick.png", "grass.png", "gravel.png", "coins.png", "moon.png", "clock_motion.png",
              "color.png"]
DEMO_TEST = ["astronaut.png", "camera.png", "chelsea.png", "coffee.png"]

# What became of one set: the CSV file, the rows in it, and (file, reason) for everything left out.
Report = namedtuple("Report", "name csv_file rows left_out")


def create_data_lists(train=None, tests=None, out="data/lists", scale=4, crop=96, progress=True):
    """Write one checked list per set.

    Parameters
    ----------
    train : path or (path, path), optional
        Folder of the training pictures, or folders of high and low resolution; written to `train.csv`.
        Pictures smaller than `crop` are left out.
    tests : dict of str → path or (path, path), optional
        The same for each test set, written to `<name>.csv`.
    out : path
        Folder for the CSV files.
    scale : {2, 4, 8}
        High resolution = scale × low resolution.
    crop : int
        Smallest side of a training picture, in high-resolution pixels.

    Returns
    -------
    list of Report
        One per set: name, csv_file, rows, left_out.

    Raises
    ------
    FileNotFoundError, ValueError
        For a folder that is missing, and for a set of which no picture can be used. A list that was
        there before is left as it was then.
    """
    sets = [("train", train, crop)] if train is not None else []
    sets += [(name, folders, 1) for name, folders in (tests or {}).items()]
    if not sets:
        raise ValueError("no set named: give a training folder, a test folder, or both")
    if scale not in (2, 4, 8):
        raise ValueError(f"scale must be 2, 4 or 8, not {scale!r}")
    if train is not None and "train" in (tests or {}):
        raise ValueError("a test set cannot be called 'train', as the list of the training pictures is; choose another "
                         "name")
    found = []
    for name, folders, smallest in sets:  # all folders first: a typing error should not cost minutes
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"{name!r} cannot name a list; use letters, digits, '_', '-' and '.'")
        hr, lr = folders if isinstance(folders, (tuple, list)) else (folders, None)
        found.append((name, *find_pairs(hr, lr, scale), smallest))
    out = Path(out).expanduser()
    return [_write_list(name, pairs, left_out, out / f"{name}.csv", scale, smallest, progress)
            for name, pairs, left_out, smallest in found]


def create_demo_lists(out="data/lists", scale=4, progress=True):
    """Lists `demo_train` and `demo_test` of the photographs inside scikit-image (nothing is downloaded).

    Parameters, result and errors as for `create_data_lists`.
    """
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [_write_list(name, [(folder / file, None) for file in files], [], Path(out, f"{name}.csv"), scale, 1,
                        progress)
            for name, files in zip(DEMO_LISTS, [DEMO_TRAIN, DEMO_TEST])]


def create_face_lists(folder, out="data/lists", scale=4, count=10661, test=5, size=128, progress=True):
    """Lists `celeba_train` and `celeba_test` of the first `count` pictures of a folder of faces.

    The last `test` of them are for testing, the others for training; of each picture the square of `size`
    pixels in its middle is used. Meant for CelebA's `img_align_celeba`, made for any pictures as large.
    Result and errors as for `create_data_lists`.
    """
    pictures, left_out = picture_files(Path(folder))
    faces = list(pictures.values())[:count]
    if len(faces) <= test:
        raise ValueError(f"{folder}: holds {len(faces)} pictures, too few to keep {test} for testing")
    return [_write_list(name, [(file, None) for file in files], reasons, Path(out, f"{name}.csv"), scale, 1, progress,
                        size)
            for name, files, reasons in [("celeba_train", faces[:-test], left_out), ("celeba_test", faces[-test:], [])]]


def create_recipe_lists(recipe, data, scale=4, out="data/lists"):
    """The lists that a recipe (see kit/settings/recipes.py) trains with, from the folder where its pictures lie."""
    if recipe == "demo":
        return create_demo_lists(out, scale)
    if recipe == "celeba":
        faces = Path(data, "img_align_celeba")
        return create_face_lists(faces if faces.is_dir() else data, out, scale)
    return create_data_lists(*find_known_sets(data), out, scale)


def find_known_sets(data):
    """The folders of DIV2K and the test sets below `data`, as arguments for `create_data_lists`."""
    data = Path(data)
    if not data.is_dir():
        raise FileNotFoundError(f"{data}: there is no such folder")

    def first(folders):
        return next((data / folder for folder in folders if (data / folder).is_dir()), None)

    train = first(TRAINING_SETS)
    tests = {name: folder for name, folders in TEST_SETS.items() if (folder := first(folders))}
    if train is None and not tests:
        known = ", ".join([TRAINING_SETS[0], *(folders[0] for folders in TEST_SETS.values())])
        raise FileNotFoundError(f"{data}: holds none of the known folders ({known}); "
                                f"name your own with --train and --test")
    return train, tests


def ensure_lists(cfg):
    """Make the lists of these settings where they can be made without being asked: those of scikit-image's photographs.

    Raises FileNotFoundError that says how to make the others.
    """
    for csv_file in (cfg.train_list, cfg.valid_list):
        if _has_moved(csv_file):
            if Path(csv_file).stem not in DEMO_LISTS:
                raise FileNotFoundError(f"{csv_file}: there is no such list yet; the README says where the pictures "
                                        f"come from, and create_data_lists.py makes the list from them")
            create_demo_lists(Path(csv_file).parent, cfg.scale)


def _has_moved(csv_file):
    """Whether a list is not there, or is one of scikit-image's photographs, and these are elsewhere now."""
    csv_file = Path(csv_file)
    if not csv_file.is_file():
        return True
    if csv_file.stem not in DEMO_LISTS:
        return False
    try:
        fields, rows = read_list_file(csv_file)
    except (ValueError, csv.Error):
        return False  # reading it will say what is wrong
    return "hr" in fields and not all((csv_file.parent / (row["hr"] or "")).is_file() for row in rows)


def test_lists(folder="data/lists"):
    """The CSV files of all test sets in a folder of lists: the known ones first, then others by name.

    Without one the held-out photographs of scikit-image are listed first.
    """
    if _has_moved(Path(folder, "demo_test.csv")):
        create_demo_lists(folder)
    names = {path.stem: path for path in sorted(Path(folder).glob("[!.]*.csv")) if path.stem not in TRAINING_LISTS}
    return [names.pop(name) for name in TEST_SETS if name in names] + list(names.values())


def graded_set(folder="data/lists"):
    """The list of the set that is graded by eye, with a sentence that says which it is and why."""
    for name, why in [("Set5", tr("the set that the assignment grades by eye")),
                      ("demo_test", tr("held-out photographs, as there is no list of Set5 yet (to get it: {command})",
                                       command="python create_data_lists.py --download benchmarks --data data"))]:
        csv_file = Path(folder, f"{name}.csv")
        if csv_file in test_lists(folder):
            return csv_file, f"{name}: {why}"
    raise FileNotFoundError(f"{folder}: holds no list of Set5 and none of scikit-image's photographs")


def missing_test_sets(folder="data/lists"):
    """The known test sets without a list in `folder`, and how to get them, as text (empty if none)."""
    lines = []
    for archive, names in [("div2k", ["DIV2K_valid"]), ("benchmarks", [n for n in TEST_SETS if n != "DIV2K_valid"])]:
        missing = [name for name in names if not Path(folder, f"{name}.csv").is_file()]
        if missing:
            lines.append(tr("no list of {names}. To get it: {command}", names=", ".join(missing),
                            command=f"python create_data_lists.py --download {archive} --data data"))
    return "\n".join(lines)


# ----------------------------------------------------------------------------- from pairs to checked rows


def _write_list(name, pairs, left_out, csv_file, scale, smallest, progress, square=None):
    rows, seen = [], {}
    room = PixelBudget(MOST_PIXELS)
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
        checks = pool.map(lambda pair: check_pair(*pair, scale, smallest, square, room), pairs)
        checks = progress_bar(checks, name, progress, total=len(pairs))
        for (rectangle, digest, reason), (hr, lr) in zip(checks, pairs):  # (in this order the bar reaches its end)
            if not reason and digest in seen:
                reason = tr("is the same picture as {name}", name=seen[digest])
            if reason:
                left_out.append((hr.name, reason))
                continue
            seen[digest] = hr.name
            rows.append({"hr": _relative(hr, csv_file.parent), "lr": lr and _relative(lr, csv_file.parent),
                         "scale": scale, **rectangle})
    report = Report(name, csv_file, rows, left_out)
    if not rows:
        raise ValueError(f"{name}: none of its pictures can be used, so {csv_file} was not written\n{_why(report)}")
    write_csv(csv_file, rows, FIELDS)
    return report


def _relative(path, folder):
    """A path as the list names it: relative, so that lists and pictures can be moved together."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive, on Windows
        return path.resolve().as_posix()


def summary(reports):
    """What was kept, what was left out and why, as text."""
    table = Table([[r.name, len(r.rows), len(r.left_out), r.csv_file] for r in reports],
                  [tr("list"), tr("kept"), tr("left out"), tr("file")])
    return "\n\n".join([table, *(_why(report) for report in reports if report.left_out)])


def _why(report, most=30):
    lines = [tr("{name}, left out:", name=report.name),
             *(f"  {file} {reason}" for file, reason in report.left_out[:most])]
    more = len(report.left_out) - most
    return "\n".join(lines + [tr("  … and {count} more", count=more)] * (more > 0))


def main(arguments=None, prog=None):
    """The command to make lists, see `python create_data_lists.py --help`."""
    parser = Parser(
        prog=prog,
        description="Check the pictures of a training set and of test sets, and write one CSV list for each.",
        epilog=f"Example: {prog or 'python create_data_lists.py'} --download div2k benchmarks --data data")
    parser.add_argument("--data", metavar="DIR", help="folder below which DIV2K and the test sets lie as unpacked")
    parser.add_argument("--download", nargs="+", metavar="WHAT", choices=ARCHIVES, default=[],
                        help="first fetch what is not there yet: " + ", ".join(ARCHIVES))
    parser.add_argument("--source", metavar="PLACE", help="address of a mirror, or local folder, with the archives")
    parser.add_argument("--train", nargs="+", metavar=("HR", "LR"),
                        help="folder of training pictures [and their low resolution]")
    parser.add_argument("--test", nargs="+", action="append", default=[], metavar=("NAME=HR", "LR"),
                        help="a test set: its name and folder [and their low resolution]; may be repeated")
    parser.add_argument("--demo", action="store_true", help="lists of the photographs inside scikit-image")
    parser.add_argument("--faces", metavar="DIR",
                        help="folder of faces (CelebA's img_align_celeba), for the recipe celeba")
    parser.add_argument("--count", type=int, default=10661, help="how many of the faces (default: %(default)s)")
    parser.add_argument("--out", default="data/lists", help="folder for the lists (default: %(default)s)")
    parser.add_argument("--scale", type=int, default=4, choices=(2, 4, 8), help="default: %(default)s")
    parser.add_argument("--crop", type=int, default=96,
                        help="leave out training pictures smaller than this (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        if options.download:
            options.data = options.data or "data"
            download(options.download, options.data, options.source)
        train, tests = find_known_sets(options.data) if options.data else (None, {})
        if options.train:
            train = _folders(options.train, "--train")
        given = set(DEMO_LISTS)
        for first, *lr in options.test:
            name, equals, hr = first.partition("=")
            if not equals:
                raise ValueError(f"--test needs NAME=FOLDER, not {first!r}")
            if name in given:
                raise ValueError(f"--test: {name!r} is the name of another list, or of the demo's; choose another")
            given.add(name)
            tests[name] = _folders([hr, *lr], "--test")
        if not (options.demo or options.faces or train or tests):
            parser.error("name a set: --demo, --data, --train, --test or --faces")
        reports = create_demo_lists(options.out, options.scale) if options.demo else []
        if options.faces:
            reports += create_face_lists(options.faces, options.out, options.scale, options.count)
        if train or tests:
            reports += create_data_lists(train, tests, options.out, options.scale, options.crop)
        print("\n" + summary(reports))
    except (ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: error: {error}")


def _folders(values, option):
    if len(values) > 2:
        raise ValueError(f"{option} takes one folder or two, not {len(values)}")
    return tuple(values) if len(values) == 2 else values[0]


if __name__ == "__main__":
    main()
