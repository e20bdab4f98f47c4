"""What a terminal or a notebook shows of the kit: tables, progress bars, command lines, "did you mean"."""

import argparse
import difflib
import html
import sys

from tqdm import tqdm

from kit.files import write_csv

for _stream in (sys.stdout, sys.stderr):  # an old console knows no "×", and shall show the rest even so
    if hasattr(_stream, "reconfigure"):
        _stream.reconfigure(errors="replace")


class Table(str):
    """Rows of cells under a header: aligned text, which a notebook shows as an HTML table.

    `left` is how many of the first columns are aligned to the left; the others are to the right.
    """

    def __new__(cls, rows, header, left=1):
        cells = [[str(cell) for cell in row] for row in [header, *rows]]
        widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
        lines = ["  ".join(cell.ljust(width) if i < left else cell.rjust(width)
                           for i, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in cells]
        table = super().__new__(cls, "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]]))
        table.cells, table.left = cells, left
        return table

    def __repr__(self):
        return str(self)

    def save(self, path):
        """Write the cells as CSV."""
        header, *rows = self.cells
        write_csv(path, [dict(zip(header, row)) for row in rows], header)

    def _repr_html_(self):
        def line(row, kind):
            return "".join(f'<{kind} style="text-align: {"left" if i < self.left else "right"}">'
                           + html.escape(cell).replace("_", "_<wbr>")  # where a long name may be broken
                           + f"</{kind}>" for i, cell in enumerate(row))

        header, *rows = self.cells
        return (f"<table><thead><tr>{line(header, 'th')}</tr></thead><tbody>"
                + "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows) + "</tbody></table>")


def progress_bar(iterable=None, description="", show=True, **options):
    """A tqdm bar on standard output, as text: it looks the same in a terminal, a live and a saved notebook."""
    return tqdm(iterable, description, file=sys.stdout, mininterval=0.5, disable=not show, **options)


def can_be_shown(text):
    """Whether what is printed to has these letters: the pipe of a program on Windows may not."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
        return True
    except UnicodeEncodeError:
        return False


def printable(text):
    """A text without what could steer a terminal: names of files, and what stands in these, can be anything."""
    return "".join(letter if letter.isprintable() else "�" for letter in str(text))


class Parser(argparse.ArgumentParser):
    """A parser of command lines that asks "did you mean …"."""

    def error(self, message):
        unknown = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
        if message.startswith("unrecognized") and unknown:
            message += did_you_mean(unknown[0], self._option_string_actions)
        super().error(message)


def did_you_mean(word, words):
    """A hint at the one of some words that was probably meant: " (did you mean 'demo'?)", or nothing."""
    near = difflib.get_close_matches(str(word), list(map(str, words)), 1, 0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
