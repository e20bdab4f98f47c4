"""What code is told by."""

import importlib
import sys
from functools import partial

import pytest
import torch

import solver
from helpers import changed, train
from kit import runs
from kit.runs import provenance
from kit.runs.code import code_of, digest, former_digest, source_of
from kit.training.phases import Phase

EPOCH = '''
import torch
WEIGHT = 2.0

def my_loss(sr, hr):
    """How far."""
    return (sr - hr).square().mean()  # eq. 4

class Scale:
    def __call__(self, loss):
        return WEIGHT * loss

def my_epoch(generator, batches):
    for lr, hr in batches:
        loss = Scale()(my_loss(generator(lr), hr))
        generator.descend(loss)
        yield {"my_loss": loss}
'''


NOTED = '''
import functools

def noted(function):
    @functools.wraps(function)
    def inner(*given):
        return function(*given)
    return inner
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the student's with an epoch function; gives what writes it anew and imports it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("kit.runs.code.KIT", tmp_path / "kit")  # it lies beside kit/

    def write(text):
        (tmp_path / "own_phases.py").write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        sys.modules.pop("own_phases", None)
        return importlib.import_module("own_phases")

    yield write
    sys.modules.pop("own_phases", None)


def test_all_that_it_uses_of_its_own_files_counts(own):
    assert set(code_of(partial(own(EPOCH).my_epoch))) == {"my_epoch", "my_loss", "Scale", "WEIGHT"}


@pytest.mark.parametrize("old, new, names", [
    ("square()", "abs()", ["my_loss"]), ("WEIGHT = 2.0", "WEIGHT = 3.0", ["WEIGHT"]),
    ("return WEIGHT * loss", "return loss", ["Scale", "WEIGHT"]), ("# eq. 4", "# equation 4", []),
    ('"""How far."""', '"""How\n    near."""', []), ("(sr - hr)", "( sr-hr )", []), ("\n\n", "\n\n\n", []),
    ("        generator.descend(loss)\n        yield", "    generator.descend(loss)\n        yield", None)])
def test_what_changes_is_named_and_comments_and_layout_are_not(own, old, new, names):
    before = code_of(own(EPOCH).my_epoch)
    if names is None:  # the same words on another level
        assert digest("for x in y:\n    f()\n    g()\n") != digest("for x in y:\n    f()\ng()\n")
        return
    after = code_of(own(EPOCH.replace(old, new)).my_epoch)
    assert sorted(name for name in {*before, *after} if before.get(name) != after.get(name)) == names


def test_an_edited_file_is_read_anew(own, tmp_path):
    """IPython's autoreload gives functions and classes that are there their new code."""
    epoch = own(EPOCH).my_epoch
    before = code_of(epoch)
    edited = EPOCH.replace("square()", "abs()").replace("WEIGHT * loss", "loss / WEIGHT")
    (tmp_path / "own_phases.py").write_text(edited, encoding="utf-8")
    after = code_of(epoch)
    assert [name for name in before if before[name] != after[name]] == ["my_loss", "Scale"]


def test_an_edited_file_is_read_anew_of_a_function_whose_decorator_stands_in_another(own, tmp_path):
    (tmp_path / "own_tools.py").write_text(NOTED, encoding="utf-8")
    text = "import own_tools\n\n\n@own_tools.noted\ndef my_epoch(batches):\n    yield 1\n"
    epoch = own(text).my_epoch
    assert "yield 1" in source_of(epoch)
    (tmp_path / "own_phases.py").write_text(text.replace("1", "100"), encoding="utf-8")
    assert "yield 100" in source_of(epoch)
    sys.modules.pop("own_tools")


def test_each_python_tells_code_by_the_same_digest():
    """As 3.10, 3.11, 3.12 and 3.13 gave it."""
    assert digest(r'''
def f(x):
    """Doc."""
    # note
    print("a"
          f"b {x:{4}.{2}} {{z}} {x!r}"

          "c", rf"\d{x}",  {"a": {1: 2}})
    f"alone {x}"
    "also not"
    return getattr(x,
                   "relu"), {
        "k": f"""
        {x =}
        """}
''') == "f3b52d2d6b52"


IN_LINES = EPOCH.replace("square()", 'pow(\n        {\n            "how": 2}["how"])')


def test_texts_in_later_lines_of_a_statement_count(own):
    before = code_of(own(IN_LINES).my_epoch)
    after = code_of(own(IN_LINES.replace('"how"', '"what"')).my_epoch)
    assert {name for name in before if before[name] != after[name]} == {"my_loss"}


def test_a_run_whose_code_was_told_in_the_former_way_goes_on(own, small_settings, monkeypatch):
    def trained(text, epochs):
        cfg = changed(small_settings, name="mine", adversarial_epochs=0)
        return solver.Trainer(cfg, [Phase("mine", own(text).my_epoch, epochs, 1e-3)], progress=False).train()

    with monkeypatch.context() as then:
        then.setattr(provenance, "code_of", lambda *functions, **_: code_of(*functions, told_by=former_digest))
        trained(IN_LINES, 1)
    with pytest.raises(ValueError, match="the code of its mine differs .*: my_loss"):
        trained(IN_LINES.replace("square", "abs").replace("2}", "3}"), 2)
    assert len(trained(IN_LINES, 2)) == 2


def test_a_changed_loss_under_an_old_name_is_refused(own, small_settings):
    def phases(module):
        return [Phase("mine", module.my_epoch, 2, 1e-3)]

    cfg = changed(small_settings, name="mine", adversarial_epochs=0)
    solver.Trainer(cfg, phases(own(EPOCH)), progress=False).train()
    assert len(solver.Trainer(cfg, phases(own(EPOCH.replace("eq. 4", ""))), progress=False).train()) == 2
    with pytest.raises(ValueError, match="the code of its mine differs from what trained its epochs 1 to 2: my_loss. "
                                         'Put it back, or choose a new name: cfg.name = "mine_2"'):
        solver.Trainer(cfg, phases(own(EPOCH.replace("square", "abs"))), progress=False)


def test_a_changed_network_is_refused_and_a_fork_says_what_is_left(small_settings, monkeypatch):
    train(small_settings)
    class Discriminator(solver.make_discriminator.__globals__["Discriminator"]):
        """Another network of the same shape."""

    monkeypatch.setitem(solver.make_discriminator.__globals__, "Discriminator", Discriminator)
    with pytest.raises(ValueError, match="the code of its adversarial differs .*: .*Discriminator.*"
                                         'cfg.fork_of = "small_2", "small" starts it .* its warmup'):
        solver.Trainer(small_settings, progress=False)


def test_runs_without_a_record_of_code_go_on(small_settings, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("kit.runs.provenance.code_of", lambda *functions, **told_by: {})
        train(small_settings, warmup_epochs=1, adversarial_epochs=0)
    assert len(train(small_settings, warmup_epochs=2, adversarial_epochs=0).history) == 2


def test_the_kits_own_code_is_known():
    """Whoever changes some of it without changing what it computes adds its new digest to KIT_CODE."""
    code = code_of(solver.warmup_epoch, solver.alternating_epoch, solver.simultaneous_epoch, solver.make_generator,
                   solver.make_discriminator, solver.make_content_loss, solver.vgg_loss)
    assert len(code) > 15 and code.keys() == provenance.KIT_CODE.keys()
    assert not {name: digest for name, digest in code.items() if digest not in provenance.KIT_CODE[name]}


@pytest.mark.parametrize("of_then", [
    {"flat_mse_loss": None},
    {"mesh_mse_loss": None, "make_content_loss": "a75f3ccf2a0b"},
    {"vgg_losses": None, "vgg_loss": "60ade71dd808", "make_content_loss": "04638d9c8aed"},  # a pass for every term
])
def test_a_run_of_a_kit_whose_content_loss_had_other_parts_goes_on(small_settings, monkeypatch, of_then):
    code = provenance.code_of
    with monkeypatch.context() as then:
        then.setattr(provenance, "code_of", lambda *functions, **told_by: {
            name: digest for name, digest in (code(*functions, **told_by) | of_then).items() if digest})
        train(small_settings, warmup_epochs=0, adversarial_epochs=1)
    assert len(train(small_settings, warmup_epochs=0, adversarial_epochs=2).history) == 2


def test_a_run_of_an_older_kit_whose_functions_computed_the_same_goes_on(small_settings, monkeypatch):
    train(small_settings, warmup_epochs=1, adversarial_epochs=0)
    changed_since = {"mse_loss": {*provenance.KIT_CODE["mse_loss"], "of today"}}
    code = provenance.code_of
    monkeypatch.setattr(provenance, "code_of", lambda *functions, **told_by: code(*functions, **told_by)
                        | {"mse_loss": "of today"})
    with pytest.raises(ValueError, match="the code of its warmup differs .*: mse_loss"):
        solver.Trainer(changed(small_settings, warmup_epochs=2, adversarial_epochs=0), progress=False)
    monkeypatch.setattr(provenance, "KIT_CODE", provenance.KIT_CODE | changed_since)
    assert len(train(small_settings, warmup_epochs=2, adversarial_epochs=0).history) == 2


@pytest.mark.parametrize("old, new, names", [
    ("abs()", "square()", ["own_losses.charbonnier"]), ("EPS = 1e-3", "EPS = 1e-2", ["own_losses.EPS"]),
    ("SCALE = 1", "SCALE = 2", ["own_losses.SCALE"])])
def test_what_is_reached_through_a_module_of_ones_own_counts(own, tmp_path, monkeypatch, old, new, names):
    losses = "EPS = 1e-3\nSCALE = 1\ndef charbonnier(sr, hr):\n    return (sr - hr).abs().mean() + EPS\n"
    epoch = ("import own_losses, math\n"
             "def epoch(x):\n    return own_losses.charbonnier(x, x) * own_losses.SCALE + math.pi\n")

    def code(text):
        (tmp_path / "own_losses.py").write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, "own_losses", raising=False)
        return code_of(own(epoch).epoch)

    before, after = code(losses), code(losses.replace(old, new))
    assert set(before) == {"epoch", "own_losses.charbonnier", "own_losses.EPS", "own_losses.SCALE"}
    assert sorted(name for name in {*before, *after} if before.get(name) != after.get(name)) == names


def test_what_a_function_has_from_the_one_around_it_counts_and_a_record_without_it_goes_on(own, small_settings):
    made = """
def factory(weight):
    def epoch(generator, batches):
        for lr, hr in batches:
            loss = weight * (generator(lr) - hr).square().mean()
            generator.descend(loss)
            yield {"loss": loss}
    return epoch
"""
    def trainer(weight):
        return solver.Trainer(small_settings, [Phase("mine", own(made).factory(weight), 1, 1e-4)], progress=False)

    trainer(1).train()
    assert len(trainer(1).history) == 1
    with pytest.raises(ValueError, match="differs from what trained its epochs 1 to 1: factory.<locals>.epoch.weight"):
        trainer(50)
    last = runs.Run(small_settings.name, small_settings.runs).checkpoint("last")
    state = torch.load(last, weights_only=True)
    del state["record"][0]["code"]["factory.<locals>.epoch.weight"]  # as older kits wrote it
    torch.save(state, last)
    assert len(trainer(1).history) == 1


def test_functions_that_use_each_other_in_a_circle_come_to_an_end_and_what_one_counts_itself_is_no_change(own):
    text = """
def outer(factor):
    count = 0
    def even(n):
        return n == 0 or odd(n - 1)
    def odd(n):
        return n and even(n - 1)
    def epoch(batches):
        nonlocal count
        count += factor
        return even(count)
    return epoch

def by_name(x):
    return made(x)

def around(function):
    def inner(x):
        return function(x)
    return inner

made = around(by_name)
"""
    epoch = own(text).outer(2)
    before = code_of(epoch)
    epoch([])
    assert code_of(epoch) == before and "outer.<locals>.epoch.factor" in before
    assert any(name.endswith("even") for name in before) and any(name.endswith("odd") for name in before)
    assert {"by_name", "around.<locals>.inner"} <= code_of(own(text).by_name).keys()
