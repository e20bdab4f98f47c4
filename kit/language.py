"""The language in which students are spoken to: English, as it stands in the source, or one that `kit/locale` has.

What figures, tables, findings and notices say goes through `tr`. Errors stay English everywhere, so that they can be
looked up; the glossary on the student's page has their words. A student edition in another language says so in
`kit/locale/language.txt`, and SR_LANGUAGE in the environment goes before that.

The catalogues are gettext's: `kit.po` is for translators, `kit.mo` what is read; `make messages` renews both.
"""

import gettext
import os
from contextlib import contextmanager
from pathlib import Path

LOCALE = Path(__file__).with_name("locale")
LANGUAGES = ("en", "zh")
_spoken = {}


def tr(message, /, **values):
    """A message in the language that is spoken, with values put into its {places}."""
    message = _spoken["catalogue"].gettext(message)
    return message.format(**values) if values else message


def N_(message):
    """A message as it is: marks what is translated where it is shown, and not where it stands."""
    return message


def language():
    """The language that is spoken: "en" or "zh"."""
    return _spoken["language"]


def speak(language):
    """Speak a language from now on. Raises ValueError for one that is not there."""
    if language not in LANGUAGES:
        raise ValueError(f"language must be one of {', '.join(LANGUAGES)}, not {language!r}")
    _spoken.update(language=language, catalogue=gettext.translation("kit", LOCALE, [language], fallback=True))


@contextmanager
def speaking(language):
    """A context in which a language is spoken."""
    before = _spoken["language"]
    speak(language)
    try:
        yield
    finally:
        speak(before)


def _chosen():
    note = LOCALE / "language.txt"
    said = os.environ.get("SR_LANGUAGE") or (note.read_text(encoding="utf-8").strip() if note.is_file() else "en")
    return said if said in LANGUAGES else "en"


speak(_chosen())
