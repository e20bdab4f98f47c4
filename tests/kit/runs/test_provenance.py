"""What trained each epoch: recorded, compared, carried along by a fork."""

import hashlib
import inspect
import json
from pathlib import Path

import pytest
import torch

import solver
from helpers import changed, equal, last, same_generator, segments, train, weights
from kit import runs
from kit.runs import provenance
from kit.runs.checkpoints import save_checkpoint


def test_a_change_that_touches_trained_epochs_asks_for_a_new_name(small_settings):
    train(small_settings)
    weight = small_settings.adversarial_weight
    for changes, words in [
        (dict(warmup_lr=1e-3), "its warmup was trained with warmup_lr = 0.002, not 0.001.*cfg.name = \"small_2\"$"),
        (dict(warmup_schedule="constant"), "warmup_schedule = 'one_cycle', not 'constant'"),
        (dict(ema_decay=0.5), "its warmup was trained with ema_decay"),
        (dict(adversarial_weight=0.1), f"its adversarial was trained with adversarial_weight = {weight}, not 0.1.*"
                                       "cfg.name, cfg.fork_of = \"small_2\", \"small\" starts it with .* its warmup$"),
        (dict(content_loss="2 mse"), "its adversarial was trained with content_loss = "
                                     "'mse [+] 2 lr_consistency', not '2 mse'"),
        (dict(updates="simultaneous"), "the epoch function = 'alternating_epoch', not 'simultaneous_epoch'"),
        (dict(warmup_epochs=3), "its warmup ended after 2 epochs, and its adversarial has begun, so warmup_epochs = 3 "
                                "comes too late.*fork_of"),
        (dict(warmup_epochs=1), "2 epochs of its warmup are trained, and warmup_epochs = 1 are fewer"),
        (dict(adversarial_epochs=1), "2 epochs of its adversarial are trained"),
    ]:
        with pytest.raises(ValueError, match=words):
            solver.Trainer(changed(small_settings, **changes), progress=False)
    assert [s["settings"]["warmup_lr"] for s in segments(small_settings)] == [0.002] * 2
    train(small_settings, device="cpu", save_minutes=3, sample_pictures=1)  # none of these touches what is trained


def test_a_fork_keeps_what_is_valid_and_ends_as_if_trained_from_the_beginning(small_settings, capsys):
    train(small_settings)
    wanted = train(small_settings, name="whole", adversarial_weight=0.1)
    other = changed(small_settings, name="forked", fork_of="small", adversarial_weight=0.1)
    forked = solver.Trainer(other)
    assert "new, with warmup of 'small': warmup at 2 of 2 epochs" in capsys.readouterr().out
    assert not Path(small_settings.runs, "forked").exists()  # opening writes nothing
    forked.train()
    assert same_generator(forked, wanted)
    assert [{**row, "seconds": 0} for row in forked.history] == [{**row, "seconds": 0} for row in wanted.history]
    folder = forked.run.folder
    assert (folder / "checkpoints" / "warmup.pt").is_file() and forked.run.sampled_epochs("warmup", "eye") == [1, 2]
    assert [(s["phase"], s["settings"]["adversarial_weight"]) for s in segments(other)] == [
        ("warmup", small_settings.adversarial_weight), ("adversarial", 0.1)]
    assert train(other).history == forked.history  # resumed like any other
    longer = train(small_settings, name="longer", fork_of="small", warmup_epochs=3)
    assert [row["phase"] for row in longer.history] == ["warmup"] * 3 + ["adversarial"] * 2
    with pytest.raises(ValueError, match="fork_of: there is no run 'smal' .*did you mean 'small'"):
        solver.Trainer(changed(small_settings, name="x", fork_of="smal"), progress=False)
    for changes, words in [(dict(warmup_lr=1e-3), "anew: its warmup was trained with warmup_lr = 0.002, not 0.001"),
                           (dict(channels=8), "anew: it was begun with channels = 4, not 8")]:
        solver.Trainer(changed(small_settings, name="x", fork_of="small", **changes))
        assert words in capsys.readouterr().out


def test_what_trained_each_epoch_is_recorded_with_it(small_settings, capsys):
    cfg = changed(small_settings, adversarial_epochs=1)
    train(cfg)
    longer = changed(cfg, adversarial_epochs=3, precision="fp32")
    solver.Trainer(changed(longer, precision="auto", adversarial_epochs=2)).train()
    solver.Trainer(longer).train()
    printed = capsys.readouterr().out
    assert "its schedule, step, is stretched from 1 to 2 epochs" in printed
    assert [(s["phase"], s["first_epoch"], s["last_epoch"], s["planned_epochs"], s["settings"]["precision"])
            for s in segments(cfg)] == [("warmup", 1, 2, 2, "auto"), ("adversarial", 1, 1, 1, "auto"),
                                         ("adversarial", 2, 2, 2, "auto"), ("adversarial", 3, 3, 3, "fp32")]
    assert "def warmup_epoch(generator, batches):" in segments(cfg)[0]["source"]


def test_own_hyperparameters_are_recorded_and_compared(small_settings):
    def epoch(generator, batches, power=1.0):
        for lr, hr in batches:
            loss = (generator(lr).float() - hr).abs().pow(power).mean()
            generator.descend(loss)
            yield {"power_loss": loss}

    phase = solver.Phase("own", epoch, 1, 1e-3)
    solver.Trainer(small_settings, [phase], progress=False).train()
    assert segments(small_settings)[0]["trained_by"]["power of the epoch function"] == "1.0"
    epoch.__defaults__ = (2.0,)
    with pytest.raises(ValueError, match="own was trained with power of the epoch function = '1.0', not '2.0'"):
        solver.Trainer(small_settings, [phase], progress=False)


def test_a_run_of_a_kit_that_did_not_know_a_setting_was_trained_with_the_papers_value(small_settings):
    cfg = changed(small_settings, gradient_penalty=0.1, penalty_every=1)
    train(cfg)
    for file in (Path(cfg.runs) / cfg.name / "checkpoints").glob("last*.pt"):
        state = torch.load(file, weights_only=True)
        for segment in state["record"]:
            segment["trained_by"].pop("penalty_every", None)
            segment["settings"].pop("penalty_every", None)
        torch.save(state, file)
    solver.Trainer(changed(cfg, adversarial_epochs=9), progress=False)
    with pytest.raises(ValueError, match="its adversarial was trained with penalty_every = 1, not 4"):
        solver.Trainer(changed(cfg, penalty_every=4), progress=False)


def test_settings_that_a_run_hangs_on_cannot_change(small_settings):
    train(small_settings)
    with pytest.raises(ValueError, match="run 'small' was begun with batch_size = 4, not 8"):
        solver.Trainer(changed(small_settings, batch_size=8), progress=False)


def test_the_kits_own_epochs_are_known_by_their_sources():
    """Whoever changes one of them without changing what it computes adds its new digest to KIT_SOURCES."""
    for function in (solver.warmup_epoch, solver.alternating_epoch, solver.simultaneous_epoch):
        digest = hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]
        assert digest in provenance.KIT_SOURCES, f"{function.__name__}: {digest}"


def test_a_run_of_an_older_kit_goes_on_as_if_it_were_of_this_one(small_settings):
    """Its settings, its content loss and some keys of its state had other names."""
    small_settings.adversarial_schedule = "constant"
    wanted = train(small_settings, name="whole")
    first = train(small_settings, adversarial_epochs=1)
    state = runs.load_checkpoint(last(small_settings))

    def older(values):
        values["content_loss"] = "mse + 2 low"
        if "rotate" in values:
            values["turn"] = values.pop("rotate")
        return values

    state["settings"], state["begun_after"] = older(state["settings"]), state.pop("initial_updates")
    for segment in state["record"]:
        segment["settings"] = older(segment["settings"])
        if "content_loss" in segment["trained_by"]:
            segment["trained_by"] = older(segment["trained_by"])
        if segment["phase"] == "warmup":
            segment["source"] = OLD_WARMUP
        else:
            segment.pop("source")  # of the oldest kits
    save_checkpoint(last(small_settings), state)
    resumed = train(small_settings)
    assert equal(weights(resumed.run.folder), weights(wanted.run.folder))
    assert {s["settings"]["content_loss"] for s in segments(small_settings)} == {"mse + 2 lr_consistency"}
    assert [s["phase"] for s in segments(small_settings)][0] == "warmup"
    (first.run.folder / "settings.json").write_text(json.dumps(state["record"]), encoding="utf-8")
    assert runs.read_settings("small", small_settings.runs)["rotate"] is True  # as tables and reports see it


def test_settings_are_known_under_their_older_names(small_settings):
    cfg = solver.settings("demo", turn=False, content_loss="low + 0.1 mse")
    assert cfg.rotate is False and "turn" not in cfg and cfg.content_loss == "lr_consistency + 0.1 mse"
    small_settings.content_loss = "mse + 2 low"  # set later, as notebooks do
    assert train(small_settings).cfg.content_loss == "mse + 2 lr_consistency"
    small_settings.turn = False
    with pytest.raises(ValueError, match="there is no setting 'turn'; it is called rotate now"):
        solver.Trainer(small_settings, progress=False)


OLD_WARMUP = '''def warmup_epoch(generator, batches):
    """The generator alone, towards the smallest squared error (section 3.2)."""
    for low, high in batches:
        loss = mse_loss(generator(low), high)
        generator.descend(loss)
        yield {"content_loss": loss}
'''
