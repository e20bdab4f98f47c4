"""The catalogues of translations: what stands in them, and that nothing is missing or left over.

`kit/locale` has what the kit says when it runs (see `kit/language.py`), `teacher/locale` the prose of the student
edition: its notebooks, and the docstrings and comments of its `models.py`, `solver.py` and tests. Both are gettext's:

    python -m teacher.translation    # what is new in the sources is put into the .po files, and the .mo made anew

Then write what is lacking into the .po files, and run it again. Babel reads and writes them; Jupyter brings it along.
"""

import ast
import io
import sys

from babel.messages import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from kit.files import KIT, write_whole
from kit.language import LANGUAGES, LOCALE
from teacher import handout, prose

HOME = KIT.parent
# Calls with a text to be translated: which of their arguments it is.
MARKS = {"tr": 0, "N_": 0, "Setting": 2, "Row": 2, "Finding": 0}
LOCALES = {"kit": LOCALE, "handout": prose.LOCALE}


def marked(source):
    """The texts in a Python source that are marked for translation, in their order."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)
             and isinstance(node.func, ast.Name) and len(node.args) > MARKS.get(node.func.id, 99)]
    texts = [node.args[MARKS[node.func.id]] for node in sorted(calls, key=lambda node: (node.lineno, node.col_offset))]
    return [text.value for text in texts if isinstance(text, ast.Constant)]


def messages(domain):
    """All messages of the sources: text → the files where it stands."""
    found = {}
    if domain == "kit":
        for path in [*sorted(HOME.glob("*.py")), *sorted(KIT.rglob("*.py")), HOME / "tests" / "test_models.py"]:
            for text in marked(path.read_text(encoding="utf-8")):
                found.setdefault(text, []).append(path.relative_to(HOME).as_posix())
        return found
    def note(text, name):
        found.setdefault(text, []).append(name)
        return text

    handout.contents(translate=note)
    return found


def file_of(domain, language, ending):
    """Where a catalogue is."""
    return LOCALES[domain] / language / "LC_MESSAGES" / f"{domain}.{ending}"


def renewed(domain, language):
    """A catalogue with the translations that its file has, of the messages that the sources have."""
    template = Catalog()
    for text, names in messages(domain).items():
        template.add(text, locations=[(name, None) for name in dict.fromkeys(names)])
    path = file_of(domain, language, "po")
    catalog = Catalog(locale=language)
    if path.is_file():
        with open(path, "rb") as file:
            catalog = read_po(file, language)
    catalog.update(template, no_fuzzy_matching=True)
    catalog.obsolete.clear()
    return catalog


def compiled(catalog):
    """A catalogue as gettext reads it, as bytes."""
    file = io.BytesIO()
    write_mo(file, catalog)
    return file.getvalue()


def main():
    for domain in LOCALES:
        for language in LANGUAGES[1:]:
            catalog = renewed(domain, language)
            with write_whole(file_of(domain, language, "po")) as temporary, open(temporary, "wb") as file:
                write_po(file, catalog, width=110, sort_output=False, omit_header=False, include_lineno=False)
            with write_whole(file_of(domain, language, "mo")) as temporary:
                temporary.write_bytes(compiled(catalog))
            lacking = [message.id for message in catalog if message.id and not message.string]
            print(f"{file_of(domain, language, 'po')}: {len(catalog)} messages, {len(lacking)} not translated")
            for text in lacking[:5]:
                print(f"    {text[:100]!r}")


if __name__ == "__main__":
    sys.exit(main())
