"""A GPU without a GPU: on PyTorch's fake tensors, which know devices and no values, all devices agree, and no update
waits for something to be brought from the CPU."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import datasets
import imresize
import solver
import utils
from kit.compute import inference
from kit.compute.device import Machine
from kit.compute.learner import Learner

GPU = torch.device("cuda", 0)


class Brought(TorchDispatchMode):
    """Notes what is brought to the GPU, or from it, and waited for."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if function is torch.ops.aten._to_copy.default and arguments[0].device != result.device:
            if not (options or {}).get("non_blocking"):
                self.waits.append(tuple(result.shape))
        return result


@pytest.fixture
def gpu(monkeypatch):
    """A mode in which there is a GPU, for what is fake."""
    def applied(module, change, recurse=True):  # (PyTorch's own swaps tensors in place, which fake ones cannot be)
        for layer in module.modules():
            for values in (layer._parameters, layer._buffers):
                for name, value in values.items():
                    if value is not None:
                        kind = nn.Parameter if values is layer._parameters else torch.Tensor.detach
                        values[name] = kind(change(value.detach()))
        return module

    monkeypatch.setattr(nn.Module, "_apply", applied)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(datasets, "compress_jpeg", lambda patches, qualities: patches.clone())
    monkeypatch.setattr(torch, "from_file", lambda file, size, dtype: torch.zeros(size, dtype=dtype))
    monkeypatch.setattr(FakeTensor, "__bool__", lambda tensor: True, raising=False)  # "it is finite"
    monkeypatch.setattr(inference, "copy_of", lambda network: network)  # (copies need a GPU)
    monkeypatch.setattr(inference, "_norms_behind_convolutions", lambda network: [])
    monkeypatch.setattr(Machine, "_device", lambda machine, wanted: GPU)
    kept = [imresize._taps, imresize._matrix, imresize._taps_on]
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        try:
            torch.empty(1, device=GPU).uniform_()
        except RuntimeError as error:
            pytest.skip(f"this PyTorch asks for a GPU even so ({str(error).splitlines()[0]})")
        yield mode
    for function in kept:
        function.cache_clear()


@pytest.mark.parametrize("recipe, changes", [
    ("paper", {}), ("demo", {}), ("celeba", {}), ("paddle", {}), ("paperspace", {}),
    ("demo", {"colour_jitter": 0.1}), ("demo", {"jpeg_noise": 1, "content_loss": "mse + 2e-6 vgg22"}),
])
def test_devices_agree_and_no_update_waits(small_lists, vgg19_weights, gpu, recipe, changes):
    cfg = solver.settings(recipe, train_list=str(small_lists / "train.csv"), crop=32, batch_size=4, channels=4,
                          blocks=1, discriminator_channels=4, discriminator_dense=8, vgg_weights=vgg19_weights[0],
                          **changes)
    machine = Machine("cuda", "fp32")
    patches = datasets.TrainDataset(cfg.train_list, cfg.scale, cfg.crop, 20, cfg.flip, cfg.rotate, cfg.colour_jitter,
                                    cfg.jpeg_noise, progress=False)
    patches.keep_on(GPU)
    with GPU:
        generator, discriminator = solver.make_generator(cfg), solver.make_discriminator(cfg)
    learners = [Learner(machine.move(network), torch.optim.Adam(network.parameters()), machine)
                for network in (generator, discriminator)]
    content_loss = solver.make_content_loss(cfg, machine)
    with Brought() as brought:
        for numbers in (range(4), range(4, 8), range(8, 12)):
            brought.waits.clear()  # what the first update brings stays there
            lr, hr = patches[numbers]
            assert lr.device == hr.device == GPU and lr.dtype == hr.dtype == torch.uint8
            lr, hr = utils.to_unit(machine.move(lr)), utils.to_signed(machine.move(hr))
            sr = learners[0](lr)
            loss = content_loss(sr, hr) + solver.adversarial_loss(learners[1](sr))
            assert sr.device == loss.device == GPU and sr.shape == hr.shape
    assert brought.waits == []
    quick = inference.QuickCopy(generator, GPU, bf16=True)
    assert quick(torch.empty(1, 3, 7, 9, device=GPU)).device == GPU and quick.note is None



def test_a_copy_can_be_for_another_device_than_its_generator_is_on(gpu):
    with GPU:
        generator = solver.make_generator(solver.settings("demo", channels=4, blocks=1, activation="relu"))
    quick = inference.QuickCopy(generator, "cpu", bf16=False)
    assert quick(torch.empty(1, 3, 7, 9)).device.type == "cpu"
