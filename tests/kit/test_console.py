"""Tables in a terminal and in a notebook."""

from kit.console import Table


def test_text_tables_are_aligned():
    lines = Table([["a", 1], ["long", 22]], ["name", "n"]).splitlines()
    assert lines == ["name   n", "────  ──", "a      1", "long  22"]
