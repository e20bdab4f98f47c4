"""Checkpoints: saved whole, loaded without running code."""

import codecs
import copy
import io
import math
import pickle
import random
import time
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import models
import solver
import utils
from helpers import equal, refused, save_generator, train, weights
from kit import runs
from kit.evaluation.generators import load_generator
from kit.runs.pickles import check_pickle


def test_a_generator_survives_saving(tmp_path, generator, photograph):
    save_generator(tmp_path / "g.pt", generator, {"epoch": 3}, channels=8, blocks=2)
    again = load_generator(tmp_path / "g.pt")
    image = photograph[:20, :20]
    assert np.array_equal(utils.super_resolve(again, image), utils.super_resolve(generator, image))
    assert runs.load_checkpoint(tmp_path / "g.pt")["epoch"] == 3


def test_a_generator_can_be_handed_on_as_safetensors_in_half_the_size(tmp_path, generator, photograph):
    save_generator(tmp_path / "g.pt", generator, channels=8, blocks=2)
    save_generator(tmp_path / "g.safetensors", generator, {"updates": 3}, channels=8, blocks=2)
    assert (tmp_path / "g.safetensors").stat().st_size < 0.6 * (tmp_path / "g.pt").stat().st_size
    again, image = load_generator(tmp_path / "g.safetensors"), photograph[:20, :20]
    assert all(value.dtype == torch.float32 for value in again.parameters())
    difference = utils.super_resolve(again, image, precision="fp32") - utils.super_resolve(
        generator, image, precision="fp32").astype(int)
    assert np.abs(difference).max() <= 1
    assert runs.load_checkpoint(tmp_path / "g.safetensors")["updates"] == 3


class Payload:
    """Pickled, this creates a file when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_that_carries_code_is_refused_and_the_code_not_run(tmp_path, generator, legacy):
    content = {"generator": generator.state_dict(), "generator_settings": {"channels": 8, "blocks": 2},
               "note": Payload(tmp_path / "ran")}
    torch.save(content, tmp_path / "evil.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match="evil.pt: (refused, because it holds more than tensors|not a readable check)"):
        runs.load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_bad_checkpoints(tmp_path, small_settings):
    generator = models.Generator(channels=4, blocks=1)
    save_generator(tmp_path / "good.pt", generator, channels=4, blocks=1)
    (tmp_path / "half.pt").write_bytes((tmp_path / "good.pt").read_bytes()[:5000])
    (tmp_path / "text.pt").write_text("hello", encoding="utf-8")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    mixed = {"generator": generator.state_dict(), "generator_settings": {"channels": 8, "blocks": 1}}
    torch.save(mixed, tmp_path / "mixed.pt")
    unreadable, foreign = "not a readable checkpoint", "first.0.weight is missing, and weights is there instead"
    for name, words in {"none": "there is no such checkpoint", "half": unreadable, "text": unreadable,
                        "empty": unreadable, "other": foreign,
                        "mixed": "do not fit your models.py with the settings in it"}.items():
        refused(lambda name=name: load_generator(tmp_path / f"{name}.pt"), tmp_path, f"{name}.pt", words)
    save_generator(tmp_path / "good.safetensors", generator, channels=4, blocks=1)
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "good.safetensors").read_bytes()[:5000])
    (tmp_path / "text.safetensors").write_text("hello", encoding="utf-8")
    save_file({"weights": torch.zeros(3)}, tmp_path / "other.safetensors", {"format": "pt"})
    save_file({"weights": torch.zeros(3)}, tmp_path / "notes.safetensors", {"author": "somebody"})
    for name, words in {"half": unreadable, "text": unreadable, "other": foreign, "notes": foreign}.items():
        refused(lambda name=name: load_generator(tmp_path / f"{name}.safetensors"), tmp_path,
              f"{name}.safetensors", words)
    refused(lambda: solver.Trainer(type(small_settings)({**small_settings, "start_from": str(tmp_path / "good.pt"),
                                                       "channels": 8})), tmp_path, "start_from", "make them equal")
    folder = tmp_path / "runs" / "small" / "checkpoints"
    folder.mkdir(parents=True)
    save_generator(folder / "last.pt", generator, channels=4, blocks=1)
    refused(lambda: solver.Trainer(small_settings), tmp_path, "not a state to resume from", "delete")
    refused(lambda: runs.read_history("nobody", tmp_path), tmp_path, "history.csv", "'nobody'")


def hostile(path, **changes):
    generator = models.Generator(channels=4, blocks=1)
    settings = {"channels": 4, "blocks": 1}
    torch.save({"generator": generator.state_dict(), "generator_settings": settings, **changes}, path)


def test_a_checkpoint_cannot_ask_for_more_than_it_brings(tmp_path):
    good = models.Generator(channels=4, blocks=1).state_dict()
    cases = {
        "wide": dict(generator_settings={"channels": 4096, "blocks": 16}),
        "wider": dict(generator_settings={"channels": 12_000, "blocks": 1}),
        "deep": dict(generator_settings={"channels": 4, "blocks": 10**9}),
        "kernel": dict(generator_settings={"channels": 4, "blocks": 1, "first_kernel": 20_001}),
        "tanh": dict(generator_settings={"channels": 4, "blocks": 1, "tanh": 10**9}),
        "scale": dict(generator_settings={"channels": 4, "blocks": 1, "scale": 4.0}),
        "no settings": dict(generator_settings=3),
        "numbers": dict(generator=dict(enumerate(good.values()))),
        "nothing": dict(generator={}),
        "nan": dict(generator={**good, "last.0.bias": torch.full((3,), float("nan"))}),
        "integers": dict(generator={**good, "last.0.bias": torch.zeros(3, dtype=torch.int32)}),
        "complex": dict(generator={**good, "last.0.bias": torch.zeros(3, dtype=torch.complex64)}),
        "expanded": dict(generator={**good, "last.0.bias": torch.zeros(1).expand(10**6, 10**6)}),
        "sparse": dict(generator={**good, "last.0.bias": torch.zeros(3).to_sparse()}),
        "lists": dict(generator_settings={"channels": 4, "blocks": 1, "tanh": doubled(lambda x: [x, x])}),
        "dictionaries": dict(generator_settings={"channels": 4, "tanh": doubled(lambda x: {1: x, 2: x})}),
        "names": dict(generator={"net." * 80_000 + name: value for name, value in good.items()}),
        "array": dict(note=Reduced(bytearray, 2**40)),
        "key": dict(note=Reduced(OrderedDict, entries=[(doubled(lambda x: (x, x)), 1)])),
        "set": dict(note={1, 2}),
        "call": dict(note=Reduced(OrderedDict, [[doubled(lambda x: (x, x)), 1]])),
        "tensor of lists": dict(note=Reduced(torch.FloatTensor, doubled(lambda x: [x, x]))),
        "text": dict(note=Reduced(codecs.encode, "x" * 10**6, "punycode")),
        "attributes": dict(generator={**good, "last.0.bias": with_attributes(good["last.0.bias"])}),
        "views": dict(generator={f"{number}": good["first.0.weight"] for number in range(100_000)}),
        "storage": dict(generator={**good, "last.0.bias": Reduced(torch.Tensor, 2**34)}),
        "infinite": dict(generator={**good, "last.0.bias": torch.full((3,), math.inf)}),
    }
    began = time.process_time()  # (of this process alone, whatever else is running)
    for name, changes in cases.items():
        hostile(tmp_path / f"{name}.pt", **changes)
        with pytest.raises(ValueError, match=f"{name}.pt: "):
            load_generator(tmp_path / f"{name}.pt")
    assert time.process_time() - began < 30  # none of them was built


class Reduced:
    """Pickled, this is what a function makes of some values, with attributes of its own, and entries."""

    def __init__(self, function, *values, entries=(), **own):
        self.function, self.values, self.own, self.entries = function, values, own, entries

    def __reduce__(self):
        return self.function, self.values, self.own or None, None, iter(self.entries)


def with_attributes(tensor):
    tensor = torch.nn.Parameter(tensor)
    tensor.isnan = 1
    return tensor


def doubled(twice, count=60):
    """A value that stands twice in one that stands twice in one …; PyTorch stores each once."""
    value = 1
    for _ in range(count):
        value = twice(value)
    return value


def test_dictionaries_with_methods_of_their_own_are_read_as_dictionaries(tmp_path):
    good = models.Generator(channels=4, blocks=1).state_dict()
    odd = Reduced(OrderedDict, entries=good.items(), items=1, keys=2, get=3, values=4)
    hostile(tmp_path / "odd.pt", generator=odd)
    made = load_generator(tmp_path / "odd.pt").state_dict()
    assert all(torch.equal(value, good[name]) for name, value in made.items())


def test_variances_below_zero_are_refused(tmp_path):
    weights = models.Generator(channels=4, blocks=1).state_dict()
    name = next(name for name in weights if name.endswith("running_var"))
    hostile(tmp_path / "g.pt", generator={**weights, name: weights[name] - 2})
    refused(lambda: load_generator(tmp_path / "g.pt"), tmp_path, "g.pt", "makes of a picture is no number")


def test_parts_that_lie_on_each_other_are_refused(tmp_path):
    """Of which each is as large as the file."""
    with zipfile.ZipFile(tmp_path / "g.pt", "w") as archive:
        archive.writestr("g/data.pkl", pickle.dumps({}))
        archive.writestr("g/data/0", bytes(100_000))
        for number in range(1, 50):
            archive.filelist.append(copy.copy(archive.filelist[1]))
            archive.filelist[-1].filename = f"g/data/{number}"
    refused(lambda: load_generator(tmp_path / "g.pt"), tmp_path, "g.pt", "lie on each other")


@pytest.mark.parametrize("how", ["capitals", "two", "after the old format"])
def test_no_pickle_is_passed_over(tmp_path, how):
    """What is looked through is what PyTorch reads."""
    hostile(tmp_path / "bomb.pt", note=Reduced(bytearray, 2**33))
    with zipfile.ZipFile(tmp_path / "bomb.pt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    if how == "after the old format":
        torch.save({"note": Reduced(bytearray, 2**33)}, tmp_path / "g.pt", _use_new_zipfile_serialization=False)
        with zipfile.ZipFile(tmp_path / "g.pt", "a") as archive:
            archive.writestr("g/data.pkl", pickle.dumps({}, 2))
    else:
        with zipfile.ZipFile(tmp_path / "g.pt", "w") as archive:
            for part, content in parts.items():
                archive.writestr(part.replace("data.pkl", "DATA.PKL"), content)
            if how == "two":
                archive.writestr("bomb/data.pkl", pickle.dumps({}, 2))
    refused(lambda: load_generator(tmp_path / "g.pt"), tmp_path, "g.pt: ")


def test_a_pickle_that_takes_more_than_there_is_is_refused():
    for content in (b"\x80\x02K\x01s.", b"\x80\x02K\x01(\x86."):  # at all, and since the last mark
        with pytest.raises(ValueError, match="takes more than there is"):
            check_pickle(io.BytesIO(content))


def test_a_checkpoint_that_inflates_is_refused(tmp_path):
    hostile(tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as good, zipfile.ZipFile(tmp_path / "bomb.pt", "w",
                                                                       zipfile.ZIP_DEFLATED) as bomb:
        for entry in good.infolist():
            bomb.writestr(entry.filename, good.read(entry))
    with pytest.raises(ValueError, match="bomb.pt: not a readable checkpoint .it is compressed"):
        load_generator(tmp_path / "bomb.pt")


def test_a_byte_of_weights_to_hand_on_that_changes_is_noticed(tmp_path):
    settings = {"channels": 4, "blocks": 1}
    path = tmp_path / "w.safetensors"
    runs.save_generator(path, models.Generator(channels=4, blocks=1).state_dict(), settings)
    whole = bytearray(path.read_bytes())
    whole[-1000] ^= 8
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="w.safetensors: not a readable checkpoint .its weights are damaged"):
        runs.load_checkpoint(path)


def test_a_bit_that_flips_in_a_state_never_changes_weights_without_a_word(small_settings):
    trained = train(small_settings, warmup_epochs=1, adversarial_epochs=1)
    path, wanted = trained.run.checkpoint("last"), weights(trained.run.checkpoint("last"))
    content, draw, noticed = path.read_bytes(), random.Random(0), 0
    for _ in range(60):
        spoiled = bytearray(content)
        spoiled[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(spoiled)
        try:
            assert equal(weights(path), wanted)
        except ValueError as error:
            assert str(path) in str(error)
            noticed += 1
    assert noticed > 30
