"""Photographs as people have them, read and written with all that belongs to them: transparency, EXIF, text.

`utils.read_picture` reads what networks learn from; here is what people want larger.
"""

from collections import namedtuple
from contextlib import suppress

import numpy as np
from PIL import Image, PngImagePlugin

from imresize import imresize
from kit.files import write_whole
from kit.language import tr
from kit.picture_files import (
    FORMATS,
    INTEROPERABILITY,
    ON_ITS_SIDE,
    as_srgb,
    open_picture,
    orientation_of,
    pixels,
    split_alpha,
    texts_of,
)
from utils import to_rgb

# `picture` is uint8 H×W×3 or H×W, `alpha` uint8 H×W or None, `exif` bytes, `text` a dict of str → str, `dpi` (across,
# down) or None.
Photograph = namedtuple("Photograph", "picture alpha exif text dpi")

ENDINGS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
LARGEST = {"jpeg": 65500, "webp": 16383}  # pixels a side that their libraries write

MOST_EXIF = 65_000  # bytes in a JPEG

# Tags of EXIF that say how the file stored its pixels: sizes, the orientation, places in a TIFF, profiles, thumbnails.
OF_THE_FILE = {*range(254, 267), 273, 274, *range(277, 282), 284, *range(288, 294), 301, *range(317, 333),
               *range(338, 348), *range(512, 533), 700, 33723, 34377, 34675, 37724}
EXIF, GPS = 0x8769, 0x8825
ACROSS, DOWN = 282, 283  # pixels for an inch or a centimetre
COLOUR_SPACE, WIDTH, HEIGHT = 0xA001, 0xA002, 0xA003


def read_photograph(path):
    """Read a picture file, its colours as sRGB, with its transparency, EXIF, text and dots per inch.

    Of EXIF what is true of any copy: no orientation, sizes or thumbnail. EXIF that Pillow cannot write is named and
    left out. Raises what `utils.read_picture` raises, but takes what is partly transparent.
    """
    image = open_picture(path)
    text = {key: str(value) for key, value in image.info["text"].items()}
    exif, dpi = _exif_of(path), _dpi_of(image)
    image, alpha = split_alpha(image)
    return Photograph(pixels(as_srgb(image, path), path), alpha, exif, text, dpi)


def _exif_of(path):
    try:
        with Image.open(path, formats=FORMATS) as image:  # again, for a TIFF's is not in its copies
            texts_of(image)
            exif = image.getexif()
            if orientation_of(image) in ON_ITS_SIDE and ACROSS in exif and DOWN in exif:
                exif[ACROSS], exif[DOWN] = exif[DOWN], exif[ACROSS]
            parts = {tag: exif.get_ifd(tag) for tag in (EXIF, GPS) if tag in exif}
        for tag in OF_THE_FILE & set(exif):
            del exif[tag]
        details = parts.get(EXIF, {})
        for tag in (WIDTH, HEIGHT, INTEROPERABILITY):
            details.pop(tag, None)
        if COLOUR_SPACE in details:
            details[COLOUR_SPACE] = 1  # sRGB
        for part in (exif, *parts.values()):
            for tag, value in list(part.items()):
                if isinstance(value, str) and not value.isascii():  # bytes, read as Latin 1, and else written as ASCII
                    part[tag] = value.encode("latin-1")
        return exif.tobytes() if exif else b""
    except Exception as error:  # Pillow raises whatever its code stumbles over
        print(tr("{path}: its EXIF cannot be taken over ({error})", path=path, error=error))
        return b""


def _dpi_of(image):
    with suppress(KeyError, TypeError, ValueError, ZeroDivisionError):
        across, down = map(float, image.info["dpi"])
        if 1 < min(across, down) <= max(across, down) < 2**15:
            return across, down


def enlarge_photograph(photograph, enlarge):
    """A photograph enlarged: its colours by `enlarge`, its transparency by bicubic interpolation."""
    picture, alpha = photograph.picture, photograph.alpha
    if alpha is None:
        return photograph._replace(picture=enlarge(picture))
    larger = enlarge(without_holes(picture, alpha))
    return photograph._replace(picture=larger, alpha=imresize(alpha, larger.shape[0] // alpha.shape[0]))


def without_holes(picture, alpha):
    """A picture whose wholly transparent pixels have the colour of the nearest one that is to be seen.

    What stands there is never seen, and often black: it would bleed into the edges.
    """
    if not alpha.any():
        return picture
    from scipy.ndimage import distance_transform_edt  # (scikit-image brings it along)

    nearest = distance_transform_edt(alpha == 0, return_distances=False, return_indices=True)
    return np.ascontiguousarray(picture[tuple(nearest)])


def save_photograph(path, photograph, kind="png", quality=92, written=lambda temporary: None):
    """Write a photograph as "png", "jpeg" or "webp" (of this `quality`), whole or not at all.

    JPEG knows no transparency: there it stands on white; nor has it room for any amount of EXIF, which is told. What is
    `written` is called with the whole file before that has its name.
    """
    picture, alpha, exif, text, dpi = photograph
    if kind == "jpeg" and len(exif) > MOST_EXIF:
        print(tr("{path}: its EXIF cannot be taken over ({error})", path=path,
                 error=f"{len(exif)} > {MOST_EXIF} bytes"))
        exif = b""
    options = {**({"exif": exif} if exif else {}), **({"dpi": dpi} if dpi else {})}  # (WebP has no dots per inch)
    if kind == "jpeg" and alpha is not None:
        seen = (alpha / 255)[..., None]
        picture, alpha = np.round(to_rgb(picture) * seen + 255 * (1 - seen)).astype(np.uint8), None
    image = Image.fromarray(picture)
    if alpha is not None:
        image = Image.merge("LA", (image, Image.fromarray(alpha))) if picture.ndim == 2 else image
        if picture.ndim == 3:
            image.putalpha(Image.fromarray(alpha))
    if kind == "png":
        options |= {"compress_level": 4}
        if text:
            options["pnginfo"] = PngImagePlugin.PngInfo()
            for key, value in text.items():
                options["pnginfo"].add_itxt(key, value)
    else:
        options |= {"quality": quality}
    with write_whole(path) as temporary:
        image.save(temporary, format=kind.upper(), **options)
        written(temporary)
