"""A calm notebook: mistakes in one line."""

from warm import python


def test_a_notebook_shows_mistakes_in_one_line_and_bugs_in_full():
    program = "\n".join([
        "from IPython.core.interactiveshell import InteractiveShell", "shell = InteractiveShell.instance()",
        "for cell in ['import solver; from kit import notebook; notebook.set_up()', "
        "'solver.settings(\"dmo\")', 'int(\"x\")']:",
        "    print('CELL', shell.run_cell(cell).success)"])
    done = python("-c", program, MPLBACKEND="agg")
    _, first, second, third = done.stdout.split("CELL")
    assert first.strip().splitlines()[0] == "True" and "there is no recipe 'dmo' (did you mean 'demo'?)" in first
    assert len(first.strip().splitlines()) == 2  # its result, and the next cell's error
    assert "Traceback" in second and third.strip() == "False"
