"""The instructor's commands: `python -m teacher handout`, `check`, `similarity`, `rating`, `scores`, `outcomes`."""

import glob
import json
import sys
from pathlib import Path

from kit.console import Parser, did_you_mean
from teacher import classes, handout, outcomes, rating, scores, similarity, submissions
from teacher.course import read_course


def main(arguments=None):
    parser = Parser(prog="python -m teacher", description="The instructor's half of the kit.")
    commands = parser.add_subparsers(dest="command", required=True)
    edition = commands.add_parser("handout", help="make the student edition: the kit without its solution")
    edition.add_argument("--out", default="handout", metavar="PATH", help="a new folder, or a file that ends in .zip "
                         "(default: %(default)s)")
    edition.add_argument("--course", metavar="INI", help="deadline, where to hand in, and marks, for students: a copy of "
                         "teacher/course.ini, filled in")
    look = commands.add_parser("check", help="look through the hand-ins of a class")
    look.add_argument("folder", help="what the learning platform gives: its download, or that unpacked")
    look.add_argument("--names", metavar="REGEX", help="how names of hand-ins are built, where it is unusual: a "
                      "regular expression with the groups student_id, name, platform_id, file, or some of them")
    look.add_argument("--roster", metavar="CSV", help="the class list, to see who is missing")
    look.add_argument("--out", default="results/checks", metavar="DIR", help="for checks.csv, a JSON file for each, "
                      "and handins/, copies of their files for `similarity` and `rating` (default: %(default)s)")
    look.add_argument("--lists", default="data/lists", metavar="DIR", help="lists of the test sets (default: "
                      "%(default)s)")
    look.add_argument("--jobs", type=int, default=2, metavar="N", help="how many at the same time (default: "
                      "%(default)s)")
    look.add_argument("--seconds", type=int, default=120, metavar="N", help="how long the code of each may run "
                      "(default: %(default)s)")
    look.add_argument("--vgg", metavar="FILE", help="VGG19's weights as torchvision downloads them "
                      "(vgg19-dcbb9e9d.pth), for losses that need them")
    look.add_argument("--again", action="store_true", help="check those again that were checked before")
    alike = commands.add_parser("similarity", help="find hand-ins that are worth comparing")
    alike.add_argument("folder", nargs="?", default="results/checks/handins", help="default: %(default)s")
    alike.add_argument("--list", default="data/lists/Set5.csv", metavar="CSV", help="of the graded pictures (default: "
                       "%(default)s)")
    alike.add_argument("--share", type=float, default=0.6, metavar="S", help="from which share of common code on "
                       "(default: %(default)s)")
    alike.add_argument("--out", default="results/checks", metavar="DIR", help="for similarity.csv and similarity.html "
                       "(default: %(default)s)")
    sheet = commands.add_parser("outcomes", help='run the sheet "predict, run, observe" with several seeds')
    sheet.add_argument("--seeds", type=int, default=3, metavar="N", help="default: %(default)s")
    sheet.add_argument("--out", default="teacher/outcomes.md", metavar="FILE", help="default: %(default)s")
    page = commands.add_parser("rating", help="make a page on which people rate the pictures of hand-ins, blind")
    page.add_argument("folder", help="a folder with a folder for each hand-in; in it, anywhere, PNGs called after the "
                      "pictures of the list")
    page.add_argument("--list", default="data/lists/Set5.csv", metavar="CSV", help="list of the pictures with their "
                      "originals (default: %(default)s)")
    page.add_argument("--out", default="results/rating.html", metavar="FILE", help="the page (default: %(default)s); "
                      "beside it goes its key, which says whose picture is whose, and is for you alone")
    page.add_argument("--raters", type=int, metavar="N", help="how many people will rate, where each gets a part only")
    page.add_argument("--times", type=int, metavar="K", help="by how many of them each version is rated then")
    table = commands.add_parser("scores", help="mean opinion scores from the files of the raters")
    table.add_argument("key", help="the key that `rating` wrote beside the page")
    table.add_argument("files", nargs="+", help="the files that the raters saved")
    table.add_argument("--without", action="append", default=[], metavar="RATER", help="leave a rater out (can be "
                       "given several times)")
    table.add_argument("--out", default="results/scores", metavar="DIR", help="for mos.csv, mos_pictures.csv and "
                       "mos.png (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        {"handout": _handout, "check": _check, "similarity": _similarity, "rating": _rating, "scores": _scores,
         "outcomes": lambda options: print(outcomes.write(options.out, options.seeds))}[options.command](options)
    except KeyboardInterrupt:
        sys.exit("stopped; what was found is kept, and the same command goes on from there")
    except (ValueError, OSError) as error:
        sys.exit(f"python -m teacher {options.command}: error: {error}")


def _handout(options):
    names = handout.make(options.out, course=read_course(options.course) if options.course else None)
    print(f"{options.out}: the student edition, {len(names)} files; README.md and README.zh.md say what it is"
          + ("" if options.course else "; --course fills in deadline and marks"))


def _check(options):
    if options.vgg and not Path(options.vgg).is_file():
        raise FileNotFoundError(f"--vgg: there is no file {options.vgg}")
    roster = submissions.read_roster(options.roster) if options.roster else None
    rows = classes.check_all(options.folder, options.out, options.lists, options.jobs, options.again, options.seconds,
                             pattern=options.names, roster=roster, vgg=options.vgg)
    missing = [row for row in rows if row["complete"] == "missing"]
    rows = [row for row in rows if row not in missing]
    complete = sum(row["complete"] == "yes" for row in rows)
    if missing:
        print(f"\nmissing: {', '.join(' '.join(filter(None, [row['student_id'], row['name']])) for row in missing)}")
    print(f"\n{classes.class_table(rows)}\n\n{complete} of {len(rows)} are complete; all findings are in "
          f"{Path(options.out, 'checks.csv')}, copies of the files in {Path(options.out, 'handins')}")
    if complete < len(rows):
        sys.exit(1)


def _similarity(options):
    found = similarity.find(options.folder, options.list, options.share)
    similarity.save(found, options.folder, options.out, Path(options.list).stem)
    print(f"{similarity.pair_table(found) if found else 'no pair is worth a look'}\n\n"
          f"side by side in {Path(options.out, 'similarity.html')}; similar does not mean copied")


def _rating(options):
    handins = {folder.name: folder for folder in sorted(Path(options.folder).iterdir()) if folder.is_dir()}
    if not handins:
        raise ValueError(f"{options.folder}: has no folder in it; put each hand-in into one")
    page, key, missing = rating.make_page(handins, options.list, options.out, options.raters, options.times)
    for name, picture in missing:
        print(f"{name}: has no {picture}.png")
    print(f"{page}: give this to the raters ({page.stat().st_size / 1e6:.1f} MB, {len(handins)} hand-ins)\n"
          f"{key}: keep this for yourself, and for `python -m teacher scores`")


def _scores(options):
    try:
        key = json.loads(Path(options.key).read_text(encoding="utf-8"))
        key["page"], key["versions"].items()
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{options.key}: is not the key of a page of ratings") from error
    # A pattern in quotes, or of a shell that leaves patterns to programs, is meant as one.
    files = [path for name in options.files for path in (sorted(glob.glob(name)) if "*" in name else [name]) or [name]]
    ratings, wrong = scores.read_ratings(files, key)
    for file, why in wrong:
        print(f"{file}: {why}")
    raters = [one.rater for one in ratings]
    for name in options.without:
        if name not in raters:
            raise ValueError(f"--without: there is no rater {name!r}{did_you_mean(name, raters)}")
    ratings = [one for one in ratings if one.rater not in options.without]
    results, raters = scores.score(ratings, key)
    print("\n" + scores.score_table(results) + "\n\n" + scores.rater_table(raters) + "\n")
    scores.save(results, options.out)
    print(f"mos.csv, mos_pictures.csv and mos.png are in {options.out}")


if __name__ == "__main__":
    main()
