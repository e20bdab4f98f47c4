"""Fonts for Chinese: labels, and names of runs and people, are written with what the system has."""

import sys
from contextlib import suppress
from pathlib import Path

import matplotlib
from matplotlib import font_manager

from kit.language import language, tr

# Of Windows, macOS and Linux. (Of a file with several fonts matplotlib knows the first: Noto's is called JP.)
CHINESE = ["Microsoft YaHei", "PingFang SC", "Hiragino Sans GB", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC",
           "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "SimHei",
           "Arial Unicode MS"]
FILES = ("msyh", "pingfang", "hiragino", "notosanscjk", "notosanssc", "sourcehansans", "wqy", "simhei", "arialuni")


def use_chinese():
    """Let figures take what their own font lacks from one for Chinese, if there is any.

    Where the kit speaks Chinese and there is none, a line says what to install.
    """
    found = _known() or _new()
    usual = [family for family in matplotlib.rcParams["font.family"] if family not in CHINESE]
    matplotlib.rcParams["font.family"] = [*usual, *found[:1]]
    if not found and language() == "zh":
        print(tr("no font for Chinese is installed, so figures show boxes: install one, on Debian, Ubuntu and Colab by "
                 "apt install fonts-noto-cjk, and restart the kernel"))


def _known():
    known = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in CHINESE if name in known]


def _new():
    """Those that were installed after matplotlib had made its list of fonts, which it does once.

    They are looked for in the usual folders: to ask the system, as matplotlib does, starts a program, and a student's
    code that is tried must not.
    """
    places = [*font_manager.X11FontDirectories, *font_manager.OSXFontDirectories, *font_manager.MSUserFontDirectories]
    places += [font_manager.win32FontDirectory()] if sys.platform == "win32" else []
    for place in places:
        with suppress(OSError):
            for path in Path(place).rglob("*.tt[cf]"):
                if path.stem.lower().replace("-", "").startswith(FILES):
                    with suppress(OSError, RuntimeError):
                        font_manager.fontManager.addfont(path)
    return _known()
