"""Fonts for Chinese: names of runs and people are written with what the system has."""

import matplotlib
from matplotlib import font_manager

# Of Windows, macOS and Linux. (Of a file with several fonts matplotlib knows the first: Noto's is called JP.)
CHINESE = ["Microsoft YaHei", "PingFang SC", "Hiragino Sans GB", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC",
           "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "SimHei",
           "Arial Unicode MS"]


def use_chinese():
    """Let figures take what their own font lacks from one for Chinese, if there is any."""
    known = {font.name for font in font_manager.fontManager.ttflist}
    usual = [family for family in matplotlib.rcParams["font.family"] if family not in CHINESE]
    matplotlib.rcParams["font.family"] = [*usual, *[name for name in CHINESE if name in known][:1]]
