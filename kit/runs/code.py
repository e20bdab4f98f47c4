"""What code is told by: digests of a function and of everything that it uses of its own files.

Comments, docstrings and layout do not count, and neither does the version of Python.
"""

import ast
import functools
import hashlib
import inspect
import io
import os
import re
import sys
import textwrap
import tokenize
import weakref
from pathlib import Path

from kit.files import KIT

# Of the modules beside kit/ these are given; code of one's own is in the others, and in notebooks.
GIVEN = {"create_data_lists", "datasets", "imresize", "utils"}
CONSTANTS = (bool, int, float, str, tuple, type(None))


def code_of(*functions, told_by=None):
    """The digests of functions, and of functions, classes and constants that they use: name → digest.

    What stands in a library, in the kit's machinery or nowhere (typed into a terminal) is left out. What is reached
    through a module of one's own (`mylosses.charbonnier`), by an object of a class of one's own or a functools.partial,
    and what a function has from the one around it, has a dot in its name. They are `told_by` another function than
    `digest`, if one is given.
    """
    found, seen, todo = {}, set(), [(function, "") for function in functions]
    while todo:
        one, prefix = todo.pop()
        one = _plain(one)
        name = prefix + getattr(one, "__qualname__", "")
        if name == prefix or name in found or prefix and id(one) in seen:  # (functions may use each other in a circle)
            continue
        seen.add(id(one))
        try:
            found[name], words, parts, counted = _read(source_of(one), told_by or digest)
        except (OSError, TypeError, SyntaxError):
            continue
        scope = getattr(one, "__globals__", None) or vars(sys.modules.get(one.__module__, object))
        around = {word: value for word, value in _around(one).items() if word not in counted}
        values = [(scope.get(word), prefix, word) for word in words if word in scope and word not in around]
        values += [(value, f"{name}.", word) for word, value in around.items()]
        values += [(getattr(scope[base], part, None), f"{base}.", part) for base, part in parts
                   if inspect.ismodule(scope.get(base)) and _is_of_the_user(scope[base])]
        for value, where, word in values:
            if is_own(value):
                todo.append((value, where))
            elif is_own(type(value)):  # `loss = Loss()`; what it holds may change while it trains
                todo.append((type(value), f"{where}{word}."))
            elif isinstance(value, functools.partial) and is_own(value.func):
                todo.append((value.func, f"{where}{word}."))
                given = [*enumerate(value.args), *sorted(value.keywords.items())]
                found[f"{where}{word}.given"] = _digest_of([(key, told(one)) for key, one in given
                                                            if isinstance(one, (*CONSTANTS, set, frozenset))])
            elif isinstance(value, CONSTANTS) and not word.startswith("__"):
                found[where + word] = _digest_of(value)
    return found


_sources = weakref.WeakKeyDictionary()  # function or class → (the state of its file, what stood there)


def source_of(one):
    """The source of a function or class. Raises what `inspect.getsource` raises.

    Kept while its file stays as it is: Python looks for a class in all of its file, and each run asks several times.
    """
    try:
        status = os.stat(inspect.getfile(inspect.unwrap(one)))  # (of what decorators have put something around)
    except OSError:  # a notebook's cell is in no file
        return inspect.getsource(one)
    state, kept = (status.st_mtime_ns, status.st_size), _sources.get(one)
    if not kept or kept[0] != state:
        kept = _sources[one] = state, inspect.getsource(one)
    return kept[1]


def _digest_of(value):
    return hashlib.sha256(lasting(repr(value)).encode()).hexdigest()[:12]


def told(value):
    """A value as a text that is the same in each process."""
    if isinstance(value, (set, frozenset)) and value:
        members = ", ".join(sorted(map(repr, value)))
        return f"{{{members}}}" if isinstance(value, set) else f"frozenset({{{members}}})"
    return lasting(repr(value))


def lasting(text):
    """A text without the addresses in memory of functions and objects, which are others in each process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def _around(one):
    """What a function has from the one around it: name → value."""
    try:
        return inspect.getclosurevars(one).nonlocals
    except (TypeError, ValueError):  # it is a class, or one of them has no value yet
        return {}


@functools.lru_cache
def _read(source, told_by):
    """The digest of a source; the names, and the parts of names (`a.b`), that it uses; those that it sets itself.

    Kept, because each phase of each run asks for the same.
    """
    source = textwrap.dedent(source)
    nodes = list(ast.walk(ast.parse(source)))
    words = {node.id for node in nodes if isinstance(node, ast.Name)}
    parts = {(node.value.id, node.attr) for node in nodes
             if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    counted = {name for node in nodes if isinstance(node, ast.Nonlocal) for name in node.names}
    return told_by(source), sorted(words), sorted(parts), counted


def digest(source):
    """The digest of a source without what does not count."""
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(source).readline)
              if token.type not in (tokenize.COMMENT, tokenize.NL)]
    parts, begins = [], True
    for token, following in zip(tokens, [*tokens[1:], tokens[-1]]):
        if token.type in (tokenize.INDENT, tokenize.DEDENT):
            parts.append("\t" if token.type == tokenize.INDENT else "\b")
        elif token.type != tokenize.NEWLINE and not (begins and _is_docstring(token, following)):
            parts.append(re.sub(r"\s", "", token.string))
        begins = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    # Python 3.12 takes f-strings apart: together, and without spaces and doubled braces, they are the same.
    return hashlib.sha256(re.sub(r"([{}])\1+", r"\1", "".join(parts)).encode()).hexdigest()[:12]


def _is_docstring(token, following):
    """Whether the first token of a statement is all of it, and a text (f-strings are none, says Python 3.12)."""
    return (token.type == tokenize.STRING and following.type in (tokenize.NEWLINE, tokenize.ENDMARKER)
            and "f" not in re.match(r"\w*", token.string)[0].lower())


def former_digest(source):
    """What `digest` was until 2026-11: a text at the beginning of a line did not count, an f-string of 3.12 did."""
    parts, begins = [], True
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT or token.type == tokenize.STRING and begins:
            continue
        if token.type in (tokenize.INDENT, tokenize.DEDENT):
            parts.append("\t" if token.type == tokenize.INDENT else "\b")
        elif token.type not in (tokenize.NEWLINE, tokenize.NL):
            parts.append(re.sub(r"\s", "", token.string).replace("{{", "{").replace("}}", "}"))
        begins = token.type in (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT)
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]


def _plain(function):
    """A function without what functools and decorators have put around it."""
    return inspect.unwrap(getattr(function, "func", function))


def is_own(value):
    """Whether something is a function or class of the user's: beside the kit, in a package of theirs, in a notebook."""
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return False
    return value.__module__ == "__main__" or _is_of_the_user(sys.modules.get(value.__module__))


def _is_of_the_user(module):
    """Whether a module is none of a library or the kit."""
    file = getattr(module, "__file__", None)
    if not file:
        return False
    file = Path(file).resolve()
    return (file.is_relative_to(KIT.parent) and not file.is_relative_to(KIT) and "site-packages" not in file.parts
            and not (file.parent == KIT.parent and file.stem in GIVEN))
