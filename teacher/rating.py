"""From many hand-ins to one HTML page on which people rate their pictures, blind.

The page needs no server and no network. It shows every version of a picture under a neutral name and in an order of its
own for each rater, the original and a nearest-neighbour enlargement hidden among them, after the protocol of the SRGAN
paper (section 3.4: 26 raters, scores from 1 to 5, calibrated with the nearest neighbour as a 1 and the original as a
5). Whose version is whose is in another file, the key, that stays with the instructor.
"""

import io
import itertools
import json
import secrets
from pathlib import Path

from PIL import Image

from datasets import TestDataset
from kit.files import data_uri, write_whole
from kit.handin.contents import RESULT
from kit.handin.findings import sanitize
from kit.handin.opening import root_of
from kit.handin.pictures import picture_file
from kit.picture_files import pixels_of
from utils import read_picture, to_rgb

ORIGINAL, NEAREST = "(original)", "(nearest neighbour)"  # the anchors, as the key calls them
PAGE = Path(__file__).with_name("rating.html")


def make_page(handins, csv_file, out, raters=None, times=None, scale=4, calibrate_with=0):
    """Write the page `out` and its key, `<out>.key.json`.

    Parameters
    ----------
    handins : dict of str → path
        Name of each hand-in → a folder with its pictures, see `find_pictures`.
    csv_file : path
        The list of the pictures, with their originals.
    raters, times : int, optional
        For a class too large for one sitting: there are so many raters, and each version is rated by so many of them,
        each of whom gets an equal part. Without, everybody rates everything.
    calibrate_with : int
        The number of the picture that shows at first what a 1 and a 5 are.

    Returns (page, key, missing): the two paths, and a list of (hand-in, picture) that are not there.
    Raises ValueError when there is nothing to rate, and FileExistsError where a key is there already.
    """
    key_file = Path(out).with_name(Path(out).name + ".key.json")
    if key_file.exists():
        raise FileExistsError(f"{key_file} is there already, and without it nothing is worth what was rated on its "
                              f"page; give another --out, or move both away")
    if (raters is None) != (times is None) or raters is not None and not 1 <= times <= raters:
        raise ValueError("give both raters and times: at least one, and at most as many times as there are raters")
    turn = itertools.cycle(range(1, raters + 1)) if raters else None
    pairs = [pair for pair in TestDataset(csv_file, scale)]
    found = {name: find_pictures(folder, pairs, Path(csv_file).stem) for name, folder in sorted(handins.items())}
    missing = [(name, pair.name) for name, pictures in found.items() for pair in pairs if pair.name not in pictures]
    key, scenes = {}, []
    for pair in pairs:
        versions = {name: pictures[pair.name] for name, pictures in found.items() if pair.name in pictures}
        if not versions:
            continue
        versions |= dict(zip((NEAREST, ORIGINAL), _anchors(pair, scale)))
        files = _equally_long({name: _png(picture) for name, picture in versions.items()})
        shown = []
        for name in sorted(versions, key=lambda _: secrets.randbelow(2**60)):  # the order in the file tells nothing
            token = secrets.token_hex(6)
            key[token] = {"picture": pair.name, "version": name}
            shown.append({"id": token, "anchor": name in (ORIGINAL, NEAREST), "data": files[name]})
        height, width = pair.hr.shape[:2]
        scenes.append({"width": width, "height": height, "versions": _shared_out(shown, turn, times)})
    if not scenes:
        raise ValueError("there is nothing to rate: no hand-in has one of the pictures of the list")
    calibration = [data_uri(_png(version)) for version in _anchors(pairs[calibrate_with], scale)]
    page_id = secrets.token_hex(8)
    content = {"page": page_id, "raters": raters, "scenes": scenes, "calibration": calibration}
    out = Path(out)
    with write_whole(out) as temporary:
        temporary.write_text(PAGE.read_text(encoding="utf-8").replace("/*CONTENT*/null", json.dumps(content)),
                             encoding="utf-8")
    with write_whole(key_file) as temporary:
        content = {"page": page_id, "times": times, "versions": key}
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    return out, key_file, missing


def find_pictures(folder, pairs, graded=None):
    """The pictures of a hand-in: name of the pair → uint8 picture, as far as there are files of these names in it.

    `graded` is the name of the set. A picture that cannot be read, or is of another size than the original, is left out
    and named on the screen.
    """
    found = {}
    for pair in pairs:
        file = picture_in(folder, pair.name, graded)
        try:
            if file and pixels_of(file) > 4 * pair.hr.shape[0] * pair.hr.shape[1]:
                raise ValueError(f"{file}: is far too large")
            picture = read_picture(file) if file else None
            if file and picture.shape[:2] != pair.hr.shape[:2]:
                raise ValueError(f"{file}: is {picture.shape[1]}×{picture.shape[0]}, and the original "
                                 f"{pair.hr.shape[1]}×{pair.hr.shape[0]}")
        except (ValueError, OSError) as error:
            print(f"left out: {sanitize(error)}")
            continue
        if file:
            found[pair.name] = picture
    return found


def picture_in(folder, name, graded=None):
    """Where a hand-in has a picture: where `check` measures it, else wherever it is least deep; None if nowhere."""
    measured = picture_file(root_of(folder) / RESULT / str(graded), name, graded)
    if measured.is_file():
        return measured
    files = [path for path in Path(folder).rglob(f"{name}.png") if path.is_file() and not path.is_symlink()]
    measured = [path for place in Path(folder).rglob(f"{RESULT.as_posix()}/{graded}")
                if (path := picture_file(place, name, graded)).is_file()]
    return min(measured or files, default=None, key=lambda path: (len(path.parts), str(path)))


def _anchors(pair, scale):
    """What everybody sees of a picture: its low resolution with pixels enlarged, and the original."""
    return pair.lr.repeat(scale, axis=0).repeat(scale, axis=1), pair.hr


def _shared_out(versions, turn, times):
    """Give each version the numbers of the raters whose turn it is; None: all. The anchors are seen by all."""
    for version in versions:
        is_anchor = version.pop("anchor")
        version["raters"] = None if is_anchor or turn is None else list(itertools.islice(turn, times))
    return versions


def _png(picture):
    """The bytes of a PNG with nothing but the pixels in it, RGB for all alike."""
    file = io.BytesIO()
    Image.fromarray(to_rgb(picture)).save(file, "PNG")
    return file.getvalue()


def _equally_long(files):
    """Data URIs of files, all of one length: how well a picture can be compressed would give it away."""
    longest = max(map(len, files.values()))
    return {name: data_uri(data + secrets.token_bytes(longest - len(data))) for name, data in files.items()}
