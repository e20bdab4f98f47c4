"""Pictures of one motif under a slider, flipped in place, with a magnifier that follows the pointer in all of them.

One piece of HTML with the pictures in it: it needs no server and no package, stays in a saved notebook, and is a page
of its own as a file. Where scripts do not run (a notebook that is not trusted, GitHub) the pictures stand side by side.
"""

import hashlib
import html
import io
import json
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from kit.evaluation.measure import score_captions, shown
from kit.files import data_uri, write_whole
from kit.language import tr
from kit.plots.pictures import detail_window
from utils import to_rgb

TEMPLATE = Path(__file__).with_name("flip.html")
LARGEST = 640  # pixels of the longer side; what is larger is made smaller, for the sake of the notebook's size


class Flip:
    """What `flip` gives: a notebook shows it, `save` writes it as a page."""

    def __init__(self, body):
        self.html = body

    def _repr_html_(self):
        return self.html

    def __repr__(self):
        return tr("pictures to be flipped and slid, which a notebook shows")

    def save(self, path):
        """Write it as an HTML page, whole or not at all."""
        with write_whole(path) as temporary:
            temporary.write_text(f'<!doctype html><meta charset="utf-8"><title>{Path(path).stem}</title>\n{self.html}',
                                 encoding="utf-8")


def flip(motifs, quality=85, scale=4):
    """Pictures to be flipped and slid: several versions of one or more motifs.

    Parameters
    ----------
    motifs : dict of str → dict of str → numpy.ndarray
        Name of the motif → title → uint8 picture; of each motif all of one size, the original last. A smaller first
        picture (the low resolution) is shown with its pixels enlarged. Titles get PSNR and SSIM against the original.
    quality : int
        Of the pictures' WebP compression, 1 to 100.
    scale : int
        So many pixels of the sides do not count in PSNR and SSIM.
    """
    body = "\n".join(_motif(name, pictures, quality, scale) for name, pictures in motifs.items())
    titles = {"slide": tr("where the two pictures meet"), "help": tr(
        "Click or space: flip the two that are marked. Drag, the slider or ← →: move the line between them. 1 to 9, or "
        "a button: another one. Below, the place under the pointer, ×4, as each has it, with PSNR and SSIM."),
        "more": tr("n and p: the next picture, and the one before.")}
    return Flip(Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        id=hashlib.sha256(body.encode()).hexdigest()[:12], motifs=body, titles=html.escape(json.dumps(titles))))


def _motif(name, pictures, quality, scale):
    *_, original = pictures.values()
    captions, (top, left, side) = score_captions(pictures, scale), detail_window(original, 32)
    height, width = original.shape[:2]
    spot = json.dumps([round((left + side / 2) / width, 4), round((top + side / 2) / height, 4)])
    factor = min(1, LARGEST / max(height, width))
    size = f'data-width="{round(width * factor)}" data-height="{round(height * factor)}"'
    percent = max(12, 98 // len(pictures))
    images = "".join(f'<img alt="{html.escape(shown(title))}" title="{captions.get(title, "")}" {size} '
                     f'style="width: {percent}%" src="{_address(picture, factor, quality)}">'
                     for title, picture in pictures.items())
    told = ", ".join(f"{shown(title)} {captions.get(title, '')}".strip() for title in pictures)
    return (f'<div class="motif" data-name="{html.escape(name)}" data-spot="{spot}">{images}'
            f'<p>{html.escape(name)}: {html.escape(told)}</p></div>')


def _address(picture, factor, quality):
    """A picture as an address that holds it."""
    image, file = Image.fromarray(np.ascontiguousarray(to_rgb(picture))), io.BytesIO()
    if factor < 1 and max(image.size) > LARGEST:
        image = image.resize([round(side * factor) for side in image.size], Image.Resampling.LANCZOS)
    image.save(file, "WEBP", quality=quality, method=4)
    return data_uri(file.getvalue(), "WEBP")
