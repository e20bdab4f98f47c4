"""Texts that somebody else has made: one reader for all that is handed in, and for what spreadsheets have saved."""

import codecs
import math
from pathlib import Path

from kit.handin.findings import sanitize

JSON = 2 * 2**20  # bytes that a file of it may have: read, they take thirty times as much memory


def text_of(path, most=math.inf):
    """The text of a file that somebody has made: UTF-8, UTF-16 with a byte order mark, else GBK.

    Raises ValueError for what is neither, and for more than `most` bytes.
    """
    if Path(path).stat().st_size > most:
        raise ValueError(f"{sanitize(Path(path).name)}: has more than {most / 2**20:.0f} MB")
    data = Path(path).read_bytes()
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # a spreadsheet's "Unicode text"
    for encoding in ("utf-16",) if marked else ("utf-8-sig", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ValueError(f"{sanitize(Path(path).name)}: is a text neither in UTF-8 nor in GBK")
