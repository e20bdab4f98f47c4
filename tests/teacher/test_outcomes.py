"""What the sheet comes to, for the instructor."""

from pathlib import Path

from kit.console import Table
from teacher import outcomes


def test_what_the_sheet_comes_to_is_of_equal_threads_and_of_lists_that_are_there(tmp_path, monkeypatch):
    swept = []

    def sweep(cfg, **options):
        swept.append((cfg, options))
        return Table([["0.1", "27.00 ± 0.10"]], ["value", "PSNR"])

    monkeypatch.setattr(outcomes, "sweep", sweep)
    lists = {"train_list": str(tmp_path / "demo_train.csv"), "valid_list": str(tmp_path / "demo_test.csv")}
    outcomes.write(tmp_path / "outcomes.md", rows=["depth", "width"], runs=str(tmp_path / "runs"), **lists)
    assert all(Path(file).is_file() for file in lists.values())
    assert [(cfg.threads, sorted(options)) for cfg, options in swept] == [
        (1, ["at_once", "blocks", "seeds"]), (1, ["at_once", "channels", "seeds"])]
    text = (tmp_path / "outcomes.md").read_text(encoding="utf-8")
    assert "## depth" in text and "27.00 ± 0.10" in text and "student edition" in text
