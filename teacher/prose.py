"""The prose of the student edition, piece by piece: paragraphs of Markdown, docstrings and comments of Python.

Each function takes a text and `translate`, a function from a piece to another, and gives the text with the pieces
replaced; code and layout stay. So one walk finds the pieces and puts in translations.
"""

import ast
import gettext
import inspect
import io
import re
import textwrap
import tokenize
from pathlib import Path

LOCALE = Path(__file__).with_name("locale")
RULER = re.compile(r"# ?-{3,} ")  # a comment that begins a part of a file
NO_PROSE = re.compile(r"(YOUR CODE HERE|\W*)$|noqa")  # comments that are for programs


def translator(language):
    """A function from a piece of prose to its translation, or to itself where it has none."""
    return gettext.translation("handout", LOCALE, [language], fallback=True).gettext


def markdown(text, translate):
    """Markdown with its headings, paragraphs and list items translated; fenced code stays.

    A paragraph is one piece, its lines joined; a table is one with its lines as they are.
    """
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _blocks(part, translate) for part in parts)


def _blocks(text, translate):
    return re.sub(r"\S.*?(?=\n\s*\n|\s*\Z)", lambda found: _block(found[0], translate), text, flags=re.DOTALL)


def _block(block, translate):
    if block.startswith("|"):
        return translate(block)
    heading = re.match(r"(#+ (?:\d+  )?)(.*)$", block, flags=re.DOTALL)
    if heading:
        return heading[1] + translate(heading[2])
    if block.startswith("* "):
        return re.sub(r"(?<=^\* ).*?(?=\n\* |\Z)", lambda found: _paragraph(found[0], translate), block,
                      flags=re.MULTILINE | re.DOTALL)
    return _paragraph(block, translate)


def _paragraph(text, translate):
    """A paragraph's translation; as it stands where it has none."""
    joined = " ".join(text.split())
    new = translate(joined)
    return text if new == joined else new


def python(source, translate):
    """Python with its docstrings and comments translated.

    Comments in lines below each other are one piece; the lines of its translation are those that it has.
    """
    lines = source.splitlines(keepends=True)
    for begin, end, text in sorted(_docstrings(source, translate) + _comments(source, translate), reverse=True):
        (first, column), (last, stop) = begin, end
        lines[first - 1 : last] = [lines[first - 1][:column] + text + lines[last - 1][stop:]]
    return "".join(lines)


def _docstrings(source, translate):
    """(begin, end, new text) of every docstring that a translation changes; places as (line, column)."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) or ast.get_docstring(node) is None:
            continue
        text = node.body[0].value
        old = inspect.cleandoc(text.value)
        new = translate(old)
        if new != old:
            indent = " " * text.col_offset
            body = textwrap.indent(new, indent).lstrip() + (f"\n{indent}" if "\n" in new else "")
            stop = len(source.splitlines()[text.end_lineno - 1].encode()[: text.end_col_offset].decode())
            found.append(((text.lineno, text.col_offset), (text.end_lineno, stop), f'"""{body}"""'))
    return found


def _comments(source, translate):
    """(begin, end, new text) of every comment, or block of comments, that a translation changes."""
    blocks = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        above = blocks[-1][-1] if blocks else None
        if above and above.start == (token.start[0] - 1, token.start[1]) and not any(
                RULER.match(one.string) or not one.line.lstrip().startswith("#") for one in (above, token)):
            blocks[-1].append(token)
        else:
            blocks.append([token])
    found = []
    for block in blocks:
        mark = re.match(r"#( ?-{3,} )?\s*", block[0].string)[0]
        old = " ".join([block[0].string.removeprefix(mark), *(token.string.lstrip("# ") for token in block[1:])])
        new = old if NO_PROSE.match(old) else translate(old)
        if new != old:
            margin = "\n" + " " * block[0].start[1] + "# "
            found.append((block[0].start, block[-1].end, mark + margin.join(new.splitlines())))
    return found
