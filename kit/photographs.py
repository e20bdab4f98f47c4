"""Photographs as people have them, read and written with all that belongs to them: transparency, EXIF, text.

`utils.read_picture` reads what networks learn from; here is what people want larger.
"""

from collections import namedtuple

import numpy as np
from PIL import Image, PngImagePlugin

from imresize import imresize
from kit.files import write_whole
from kit.picture_files import as_srgb, open_picture, pixels, split_alpha
from utils import to_rgb

# `picture` is uint8 H×W×3 or H×W, `alpha` uint8 H×W or None, `exif` bytes, `text` a dict of str → str.
Photograph = namedtuple("Photograph", "picture alpha exif text")

ENDINGS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


def read_photograph(path):
    """Read a picture file, its colours as sRGB, with its transparency, EXIF (but for the orientation) and text.

    Raises what `utils.read_picture` raises, but takes what is partly transparent.
    """
    image = open_picture(path)
    exif = image.getexif().tobytes() if image.getexif() else b""
    text = {key: str(value) for key, value in image.info["text"].items()}
    image, alpha = split_alpha(image)
    return Photograph(pixels(as_srgb(image, path), path), alpha, exif, text)


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


def save_photograph(path, photograph, kind="png", quality=92):
    """Write a photograph as "png", "jpeg" or "webp" (of this `quality`), whole or not at all.

    JPEG knows no transparency: there it stands on white.
    """
    picture, alpha, exif, text = photograph
    options = {"exif": exif} if exif else {}
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
