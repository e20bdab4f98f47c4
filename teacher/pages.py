"""HTML pages in one file: texts that are only shown, pictures within the page, nothing fetched from elsewhere."""

import base64
import hashlib
import html
import io

from PIL import Image

from kit.files import data_uri, write_whole
from utils import to_rgb

_PAGE = """<!doctype html>
<html lang="{language}">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'{policy}">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, "Noto Sans CJK SC", "Microsoft YaHei", "PingFang SC", sans-serif; color: #222;
  max-width: 1320px; margin: 1.5em auto; padding: 0 1em }}
h1 {{ font-size: 1.6em }} h2 {{ font-size: 1.25em; margin-top: 1.8em; border-bottom: 1px solid #ccc }}
table {{ border-collapse: collapse }} .wide {{ overflow-x: auto }}
th, td {{ padding: .3em .7em; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }}
th button {{ font: inherit; font-weight: bold; border: 0; background: none; padding: 0; cursor: pointer }}
th button::after {{ content: " ↕"; color: #999 }}
.problem {{ color: #a00 }} .note {{ color: #850 }} .ok {{ color: #060 }}
.row {{ display: flex; flex-wrap: wrap; gap: 1em; margin-bottom: 1em }}
figure {{ margin: 0; flex: 1 1 260px; max-width: 512px }}
figure img {{ width: 100%; image-rendering: auto; display: block }} figcaption {{ font-size: .9em }}
{style}</style>
<body>
{body}
{script}</body>
</html>
"""


def write_page(path, title, body, language="en", script="", style=""):
    """Write a page whose `body` is HTML, in which every text of a stranger has gone through `text`.

    Of scripts only `script` runs, whatever the body holds.
    """
    policy = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    content = _PAGE.format(language=language, title=text(title), body=body, style=style,
                           policy=f"; script-src 'sha256-{policy}'" if script else "",
                           script=f"<script>{script}</script>\n" if script else "")
    with write_whole(path) as temporary:
        temporary.write_text(content, encoding="utf-8", errors="replace")


def text(words):
    """A text as HTML that shows it."""
    return html.escape(str(words))


def image(picture, caption="", quality=92, longest=512):
    """A picture with what stands below it, as a figure; it is made small where it is longer than `longest` pixels."""
    picture = Image.fromarray(to_rgb(picture))
    picture.thumbnail((longest, longest))
    return drawing(picture, "JPEG", caption, quality=quality)


def drawing(picture, kind, caption="", **options):
    """The same of a picture of Pillow's, in a format of its."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    shown = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{text(caption)}" src="{data_uri(file.getvalue(), kind)}">{shown}</figure>'
