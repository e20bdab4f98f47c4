"""The instructor's commands: `python -m teacher rating …`, `python -m teacher scores …`."""

import json
import sys
from pathlib import Path

from teacher import rating, scores
from utils import Parser


def main(arguments=None):
    parser = Parser(prog="python -m teacher", description="The instructor's half of the kit.")
    commands = parser.add_subparsers(dest="command", required=True)
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
    table.add_argument("--out", default="results/scores", metavar="DIR", help="for mos.csv, mos_pictures.csv and "
                       "mos.png (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        _rating(options) if options.command == "rating" else _scores(options)
    except (ValueError, OSError) as error:
        sys.exit(f"python -m teacher {options.command}: error: {error}")


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
    ratings, wrong = scores.read_ratings(options.files, key)
    for file, why in wrong:
        print(f"{file}: {why}")
    results, raters = scores.score(ratings, key)
    print("\n" + scores.score_table(results) + "\n\n" + scores.rater_table(raters) + "\n")
    scores.save(results, options.out)
    print(f"mos.csv, mos_pictures.csv and mos.png are in {options.out}")


if __name__ == "__main__":
    main()
