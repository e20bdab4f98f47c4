"""The instructor's commands: `python -m teacher handout`, `check`, `similarity`, `rating`, `scores`, `grades`,
`feedback`, `summary`, `outcomes`."""

import glob
import json
import sys
from pathlib import Path

from kit.console import Parser, Table, did_you_mean
from kit.files import write_csv
from kit.language import LANGUAGES, language, speaking
from teacher.course import read_course
from teacher.roster import read_own, read_roster

# The modules of the commands are imported where these are run: `--help` need not wait for PyTorch.

SET5 = "data/lists/Set5.csv"  # the list of the graded pictures


def main(arguments=None):
    parser = Parser(prog="python -m teacher", description="The instructor's half of the kit.")
    commands = parser.add_subparsers(dest="command", required=True)
    edition = commands.add_parser("handout", help="make the student edition: the kit without its solution")
    edition.add_argument("--out", default="handout", metavar="PATH", help="a new folder, or a file that ends in .zip "
                         "(default: %(default)s)")
    edition.add_argument("--language", choices=[*LANGUAGES, "both"], default=language(), help="of its prose and "
                         "of what it says; both makes two, PATH-en and PATH-zh (default: %(default)s)")
    edition.add_argument("--course", metavar="INI", help="deadline, where to hand in, and marks, to be told to "
                         "students: a copy of teacher/course.ini, filled in")
    look = commands.add_parser("check", help="look through the hand-ins of a class")
    look.add_argument("folder", help="what the learning platform gives: its download, or that unpacked")
    look.add_argument("--names", metavar="REGEX", help="how names of hand-ins are built, where it is unusual: a "
                      "regular expression with the groups student_id, name, platform_id, file, or some of them")
    look.add_argument("--roster", metavar="CSV", help="the class list, to see who is missing: best Moodle's grading "
                      "worksheet or Canvas' grade book, which have the numbers of their files")
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
    look.add_argument("--execute", action="store_true", help="execute the notebooks again, too, in a small setting "
                      "(takes half a minute for each hand-in)")
    look.add_argument("--language", choices=LANGUAGES, default=language(), help="of the findings, as students "
                      "will read them in their feedback (default: %(default)s)")
    look.add_argument("--again", action="store_true", help="check those again that were checked before")
    alike = commands.add_parser("similarity", help="find hand-ins that are worth comparing")
    alike.add_argument("folder", nargs="?", default="results/checks/handins", help="default: %(default)s")
    alike.add_argument("--list", default=SET5, metavar="CSV", help="of the graded pictures (default: "
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
    page.add_argument("--list", default=SET5, metavar="CSV", help="list of the pictures with their "
                      "originals (default: %(default)s)")
    page.add_argument("--out", default="results/rating.html", metavar="FILE", help="the page (default: %(default)s); "
                      "beside it goes its key, which says whose picture is whose, and is for you alone")
    page.add_argument("--raters", type=int, metavar="N", help="how many people will rate, where each gets a part only "
                      "(with --times)")
    page.add_argument("--times", type=int, metavar="K", help="by how many of them each version is rated then")
    table = commands.add_parser("scores", help="mean opinion scores from the files of the raters")
    table.add_argument("key", help="the key that `rating` wrote beside the page")
    table.add_argument("files", nargs="+", help="the files that the raters saved")
    table.add_argument("--without", action="append", default=[], metavar="RATER", help="leave a rater out (can be "
                       "given several times)")
    table.add_argument("--out", default="results/scores", metavar="DIR", help="for mos.csv, mos_pictures.csv and "
                       "mos.png (default: %(default)s)")
    marks = commands.add_parser("grades", help="from checks, opinion scores and marks of reports to a grade file")
    marks.add_argument("--marks", default="results/marks.csv", metavar="CSV", help="where you mark the reports: made, "
                       "if it is not there, and completed by new hand-ins (default: %(default)s)")
    marks.add_argument("--course", metavar="INI", help="weights, rubric and late days: a copy of teacher/course.ini")
    marks.add_argument("--into", metavar="CSV", help="fill the grades into a copy of Moodle's grading worksheet, of "
                       "Canvas' exported grade book, or of another file with a row for each student")
    marks.add_argument("--column", metavar="NAME", help="the column of that file, if it cannot be guessed")
    marks.add_argument("--out", default="results/grades", metavar="DIR", help="for grades.csv and the copy (default: "
                       "%(default)s)")
    back = commands.add_parser("feedback", help="make a page for each student, and a zip of them for Moodle")
    back.add_argument("--language", choices=LANGUAGES, default=language(), help="of the page; findings are in that "
                      "of `check` (default: %(default)s)")
    back.add_argument("--notes", action="store_true", help="tell students the notes, too, which are for you")
    back.add_argument("--out", default="results/feedback", metavar="DIR", help="default: %(default)s")
    whole = commands.add_parser("summary", help="make a page of the whole class")
    whole.add_argument("--out", default="results/summary.html", metavar="FILE", help="default: %(default)s")
    for command in (marks, back, whole):
        command.add_argument("--checks", default="results/checks", metavar="DIR", help="what `check` wrote (default: "
                             "%(default)s)")
        command.add_argument("--scores", default="results/scores", metavar="DIR", help="what `scores` wrote, if it is "
                             "there (default: %(default)s)")
    for command in (back, whole):
        command.add_argument("--grades", default="results/grades/grades.csv", metavar="CSV", help="what `grades` "
                             "wrote, if it is there (default: %(default)s)")
        command.add_argument("--list", default=SET5, metavar="CSV", help="of the graded pictures "
                             "(default: %(default)s)")
    options = parser.parse_args(arguments)
    spoken = options.language if options.command == "check" else language()
    try:
        with speaking(spoken):
            {"handout": _handout, "check": _check, "similarity": _similarity, "rating": _rating, "scores": _scores,
             "grades": _grades, "feedback": _feedback, "summary": _summary,
             "outcomes": _outcomes}[options.command](options)
    except KeyboardInterrupt:
        goes_on = options.command in ("check", "outcomes")
        sys.exit("stopped; " + ("what was found is kept, and the same command goes on from there" if goes_on else
                                "nothing was written that is not whole"))
    except (ValueError, OSError) as error:
        if isinstance(error, FileNotFoundError) and error.filename:  # as Python says it
            error = f"there is no file or folder {error.filename}"
        sys.exit(f"python -m teacher {options.command}: error: {error}")


def _handout(options):
    from teacher import handout

    course, out = read_course(options.course) if options.course else None, Path(options.out)
    for each in LANGUAGES if options.language == "both" else [options.language]:
        place = out.with_name(f"{out.stem}-{each}{out.suffix}") if options.language == "both" else out
        names = handout.make(place, course=course, language=each)
        print(f"{place}: the student edition, {len(names)} files; its README.md says what it is"
              + ("" if course else "; --course fills in deadline and marks"))


def _check(options):
    from teacher import classes

    if options.vgg and not Path(options.vgg).is_file():
        raise FileNotFoundError(f"--vgg: there is no file {options.vgg}")
    roster = read_roster(options.roster) if options.roster else None
    rows = classes.check_all(options.folder, options.out, options.lists, options.jobs, options.again, options.seconds,
                             pattern=options.names, roster=roster, vgg=options.vgg, execute=options.execute)
    missing, unclear = ([row for row in rows if row["complete"] == word] for word in ("missing", "unclear"))
    rows = [row for row in rows if row["handin"]]
    complete = sum(row["complete"] == "yes" for row in rows)
    for people, what in ((missing, "missing"), (unclear, "of these names there are several, and which hand-in is whose "
                                                         "cannot be told")):
        if people:
            names = (" ".join(filter(None, [row["student_id"], row["name"]])) for row in people)
            print(f"\n{what}: {', '.join(names)}")
    print(f"\n{classes.class_table(rows)}\n\n{complete} of {len(rows)} are complete; all findings are in "
          f"{Path(options.out, 'checks.csv')}, copies of the files in {Path(options.out, 'handins')}")
    if complete < len(rows):
        sys.exit(1)


def _outcomes(options):
    from teacher import outcomes

    print(outcomes.write(options.out, options.seeds))


def _similarity(options):
    from teacher import similarity

    _folder(options.folder)
    _list(options, "pictures are not compared")
    found = similarity.find(options.folder, options.list, options.share)
    similarity.save(found, options.folder, options.out, Path(options.list).stem)
    print(f"{similarity.pair_table(found) if found else 'no pair is worth a look'}\n\n"
          f"side by side in {Path(options.out, 'similarity.html')}; similar does not mean copied")


def _rating(options):
    from teacher import rating

    _folder(options.folder)
    handins = {folder.name: folder for folder in sorted(Path(options.folder).iterdir()) if folder.is_dir()}
    if not handins:
        raise ValueError(f"{options.folder}: has no folder in it; put each hand-in into one")
    page, key, missing = rating.make_page(handins, options.list, options.out, options.raters, options.times)
    for name, picture in missing:
        print(f"{name}: has no {picture}.png")
    print(f"{page}: give this to the raters ({page.stat().st_size / 1e6:.1f} MB, {len(handins)} hand-ins)\n"
          f"{key}: keep this for yourself, and for `python -m teacher scores`")


def _scores(options):
    from teacher import scores

    try:
        key = json.loads(Path(options.key).read_text(encoding="utf-8"))
        key["page"], key["versions"].items()
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{options.key}: is not the key of a page of ratings") from error
    # A pattern in quotes, or of a shell that leaves patterns to programs, is meant as one.
    files = [path for name in options.files for path in (sorted(glob.glob(name)) if "*" in name else [name])]
    if lacking := [name for name in [*options.files, *files] if not glob.glob(name) and not Path(name).is_file()]:
        raise FileNotFoundError(f"there is no file of ratings {lacking[0]}")
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


def _grades(options):
    from teacher import grades, platforms

    course, checks = read_course(options.course), _checks(options)
    if not options.course:
        print("weights, rubric and late days are those of teacher/course.ini; --course names another file")
    late = platforms.late_days(options.into, checks, course.deadline) if options.into else {}
    opinions = _if_there(Path(options.scores, "mos.csv"))
    marks = grades.make_marks(options.marks, checks, course)
    rows = grades.grades(checks, read_own(opinions) if opinions else [], marks, course, late)
    target = Path(options.out, "grades.csv")
    write_csv(target, rows, grades.FIELDS, for_spreadsheets=True)
    shown = ["handin", "name", "checks", "pictures", "report", "late_days", "points", "open"]
    print(Table([[row[key] for key in shown] for row in rows], shown, left=2))
    print(f"\n{sum(row['points'] != '' for row in rows)} of {len(rows)} have a grade, in {target}; reports are marked "
          f"in {options.marks}")
    known = late or any(row["late"] for row in checks) or any(row.get("late_days") for row in marks.values())
    if course.deadline and not known:
        print("who was late is not known, for it is not in the names of the files: name Moodle's worksheet with "
              f"--into, or fill in late_days in {options.marks}")
    if options.into:
        copy = Path(options.out, Path(options.into).name)
        if copy.resolve() == Path(options.into).resolve():
            raise ValueError(f"--into: {copy} would be overwritten; give another --out")
        written, replaced, without, left = platforms.fill(options.into, copy, rows, course, options.column)
        print(f"{copy}: {written} grades filled in, {replaced} of them in the place of another; "
              f"{course.points:g} points are the maximum that the file names")
        for names, what in ((without, "in it, without a grade"), (left, "have a grade and are not in it")):
            if names:
                print(f"{what}: {', '.join(names)}")


def _feedback(options):
    from teacher import feedback

    _checks(options)
    _list(options, "pictures are not shown")
    pages = feedback.make(options.checks, options.out, options.list,
                          _if_there(Path(options.scores, "mos_pictures.csv")), _points(options),
                          options.language, options.notes)
    print(f"{len(pages)} pages are in {options.out}; {Path(options.out, 'feedback.zip')} is for Moodle's "
          '"Upload multiple feedback files in a zip"')


def _summary(options):
    from teacher import summary

    _checks(options)
    _list(options, "pictures are not shown")
    opinions = options.scores if _if_there(Path(options.scores, "mos.csv")) else None
    summary.make(options.checks, options.out, options.list, opinions, _points(options))
    print(options.out)


def _checks(options):
    """The rows of what `check` has found."""
    file = Path(options.checks, "checks.csv")
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there: run python -m teacher check first, or say where with --checks")
    return read_own(file)


def _folder(path):
    if not Path(path).is_dir():
        raise FileNotFoundError(f"there is no folder {path}; python -m teacher check makes one with copies of all "
                                f"hand-ins, results/checks/handins")


def _list(options, without):
    """Say what is not done without the list of the graded pictures; FileNotFoundError where it is not the usual one."""
    if _if_there(options.list):
        return
    if options.list != SET5:
        raise FileNotFoundError(f"--list: there is no list {options.list}")
    print(f"{without}: there is no list {SET5}; python create_data_lists.py --download benchmarks --data data makes it")


def _points(options):
    """The file of grades, or None, which is said."""
    grades = _if_there(options.grades)
    if not grades:
        print(f"points are left out: there is no {options.grades}")
    return grades


def _if_there(path):
    return path if Path(path).is_file() else None


if __name__ == "__main__":
    main()
