"""A network that learns."""

import pytest
import torch

import models
import solver
from helpers import changed, learner, train, weights
from kit import runs


def test_a_discriminator_without_batch_norm_judges_two_batches_at_once_with_the_same_result():
    torch.manual_seed(0)
    network = models.Discriminator(crop=16, channels=4, dense=8, batch_norm=False)
    assert network.per_sample and not models.Discriminator(crop=16, channels=4).per_sample
    batches, calls = torch.rand(2, 3, 3, 16, 16), []
    network.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    together = learner(network, 0.1)(*batches)
    network.per_sample = False
    apart = learner(network, 0.1)(*batches)
    assert calls == [6, 3, 3]
    torch.testing.assert_close(list(together), apart)


def test_batches_of_other_sizes_and_other_outputs_than_a_tensor_are_judged_one_after_the_other():
    network = models.Discriminator(crop=16, channels=4, dense=8, batch_norm=False, flatten=False)
    outputs = learner(network, 0.1)(torch.rand(2, 3, 16, 16), torch.rand(2, 3, 32, 32))
    assert [output.shape[-1] for output in outputs] == [1, 2]
    network.forward = lambda picture: (picture, 1)
    assert [one for _, one in learner(network, 0.1)(*torch.rand(2, 2, 3, 16, 16))] == [1, 1]


def test_moments_of_other_shapes_are_refused(small_settings):
    path = train(small_settings, adversarial_epochs=0).run.checkpoint("last")
    state = runs.load_checkpoint(path)
    state["g_optimizer"]["state"][0]["exp_avg"] = torch.zeros(2)
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"last.pt: cannot be resumed from \(exp_avg of weight 0 is \(2,\)"):
        solver.Trainer(small_settings, progress=False)


def test_resumed_in_another_layout_the_moments_stay_with_their_weights(small_settings):
    cfg = changed(small_settings, precision="fp32", adversarial_epochs=0, warmup_schedule="constant", channels=8)
    wanted = weights(train(cfg, name="whole").run.checkpoint("last"))
    train(cfg, warmup_epochs=1)
    found = weights(train(cfg, channels_last=False).run.checkpoint("last"))
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=2e-5)
