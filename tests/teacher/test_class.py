"""A class of honest people and of cheats: each hand-in's verdict beside the one it deserves (shown by `-s`)."""

import json

import pytest
from cheats import CHEATS
from honest import HONEST
from students import Student, make_all, make_set5

from helpers import ROOT, walls
from kit.console import Table
from kit.handin import check as handin
from kit.handin.findings import Finding
from kit.handin.pictures import check_pictures
from teacher import classes, similarity


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory, photograph):
    """Of each hand-in its row in the class's table, and with whom `similarity` names it."""
    folder = tmp_path_factory.mktemp("class")
    pairs = make_set5(folder / "lists", photograph)
    make_all(HONEST, folder / "in", folder / "work", pairs)
    make_all(CHEATS, folder / "in", folder / "work", pairs, first=1000)
    tried = {name for name, (_, _, _, code, _) in {**HONEST, **CHEATS}.items() if code}
    check_code = handin.check_code

    def only_where_code_matters(root, trial, *options):
        if any(part in tried for part in root.parts):
            return check_code(root, trial, *options)
        return [Finding("networks", "ok", "as the kit's"), Finding("training", "ok", "as the kit's")]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handin, "check_code", only_where_code_matters)
        rows = classes.check_all(folder / "in", folder / "out", folder / "lists", progress=False)
    pairs = similarity.find(folder / "out" / "handins", folder / "lists" / "Set5.csv", weights=ROOT / "weights")
    alike = {}
    for pair in pairs:
        alike.setdefault(pair.first, []).append(pair.second)
        alike.setdefault(pair.second, []).append(pair.first)
    return {row["handin"]: (row, alike.get(row["handin"], [])) for row in rows}


def given(row, alike, words):
    """What a hand-in was given, in the words of the tables."""
    if row["problems"]:
        return "problem"
    return "similar" if words and words in alike else "note" if row["notes"] else "ok"


@walls
@pytest.mark.parametrize("table", [HONEST, CHEATS], ids=["honest", "cheats"])
@pytest.mark.xdist_group("class")
def test_each_gets_the_verdict_that_it_deserves(verdicts, table):
    rows, wrong = [], []
    for name, (what, deserved, words, _, _) in table.items():
        row, alike = verdicts[name]
        verdict = given(row, alike, words if deserved == "similar" else None)
        rows.append([name, what, deserved, verdict, row["findings"][:60]])
        fits = verdict == deserved or deserved == "unseen" and verdict == "ok"
        if not fits or deserved != "similar" and words not in row["findings"]:
            wrong.append(rows[-1])
    print(f"\n{Table(rows, ['hand-in', 'what it is', 'deserved', 'given', 'said'], left=5)}")
    assert not wrong, "\n".join(map(str, wrong))
    assert len(rows) >= 26


# Whose code is the kit's, which the tests have given them.
KITS = [similarity.SOLUTION, *(name for name, (_, _, _, code, _) in HONEST.items() if code)]


@walls
@pytest.mark.xdist_group("class")
def test_nobody_honest_is_called_similar(verdicts):
    """But to who has copied from them."""
    for name in HONEST:
        assert set(verdicts[name][1]) <= {*CHEATS, *KITS}, name


def test_pictures_of_set5_that_nobody_has_measured_are_told(tmp_path, photograph):
    pairs = make_set5(tmp_path / "lists", photograph)
    (tmp_path / "lists" / "demo_test.csv").write_bytes((tmp_path / "lists" / "Set5.csv").read_bytes())
    student = Student(tmp_path / "ann", pairs, 1)
    handed = student.folder / "results" / "handin"
    (handed / "Set5").rename(handed / "demo_test")
    (handed / "result.json").write_text(json.dumps({"set": "demo_test", "method": "mine", "run": "mine"}),
                                        encoding="utf-8")
    said, _ = check_pictures(student.folder, tmp_path / "lists")
    assert not any("there are others in results/handin/Set5" in one.text for one in said)
    student.pictures({pair.name: pair.hr for pair in pairs})
    (handed / "result.json").write_text(json.dumps({"set": "demo_test", "method": "mine", "run": "mine"}),
                                        encoding="utf-8")
    said, _ = check_pictures(student.folder, tmp_path / "lists")
    assert [one.verdict for one in said if "there are others in results/handin/Set5" in one.text] == ["problem"]
