"""Losses and epochs against their equations written out; the command to train."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from easydict import EasyDict
from warm import python

import models
import solver
import utils
from helpers import ROOT, equal, learner, train
from kit import runs, vgg

MSE = EasyDict(content_loss="mse", scale=4)


def test_the_consistency_loss_sees_only_what_imresize_keeps():
    hr, loss = torch.rand(2, 3, 32, 32) * 2 - 1, solver.make_content_loss(EasyDict(MSE, content_loss="low + 0.1 mse"))
    noise = torch.zeros(2, 3, 32, 32)
    noise[..., ::2] += 0.5
    noise[..., 1::2] -= 0.5  # a pattern that is nearly gone when it is made small
    assert loss(hr + 0.5, hr).item() == pytest.approx(0.25 * 1.1, rel=1e-4)
    assert loss(hr + noise, hr).item() == pytest.approx(0.25 * 0.1, rel=0.1)


def test_errors_count_where_the_original_is_flat():
    """Against the equation, with the variance of grey levels taken window by window, smaller ones at the border."""
    hr = 0.2 * torch.rand(2, 3, 20, 24)
    hr[..., 12:] = 0.2 * torch.rand(2, 3, 1, 1)  # (near 0, where a difference of squares loses no digits)
    sr = hr + torch.rand(2, 3, 20, 24) - 0.5
    grey, variance = hr.double().mean(1), torch.empty(2, 20, 24)
    for y in range(20):
        for x in range(24):
            window = grey[:, max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5]
            variance[:, y, x] = window.var(dim=(1, 2), correction=0)
    wanted = ((sr - hr) ** 2 / (1 + variance / (6 / 127.5) ** 2)[:, None]).mean()
    loss = solver.make_content_loss(EasyDict(MSE, content_loss="0.5 flat_mse"))
    assert loss(sr, hr).item() == pytest.approx(wanted.item() / 2, rel=1e-4)
    flat, busy = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    busy[..., ::2] = 1
    assert loss(flat + 0.1, flat).item() == pytest.approx(0.005, rel=1e-4)
    assert loss(busy + 0.1, busy).item() < 0.0001


def test_a_mesh_costs_and_texture_does_not():
    loss = solver.make_content_loss(EasyDict(MSE, content_loss="mesh_mse"))
    original, texture = torch.rand(2, 3, 64, 64), torch.randn(2, 3, 64, 64)
    mesh = torch.randn(2, 3, 4, 4).repeat(1, 1, 16, 16)
    assert loss(original + mesh, original).item() == pytest.approx(mesh.square().mean().item(), rel=1e-3)
    assert loss(original + texture, original).item() < 0.06  # (of 1)
    smallest = original[..., :8, :8]  # (two pixels of the low resolution a side, which are averaged over then)
    assert loss(smallest + mesh[..., :8, :8], smallest).item() == pytest.approx(mesh.square().mean().item(), rel=1e-3)


def tiny(seed=0):
    torch.manual_seed(seed)
    generator = models.Generator(4, channels=4, blocks=1)
    discriminator = models.Discriminator(16, channels=2, dense=4)
    lr = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8)
    hr = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    return generator, discriminator, lr, hr


def test_a_warm_up_update_is_one_step_down_the_gradient_of_the_mse():
    generator, _, lr, hr = tiny()
    losses = list(solver.warmup_epoch(learner(generator, 0.1), [(utils.to_unit(lr), utils.to_signed(hr))]))
    plain, _, lr, hr = tiny()
    loss = ((plain(lr / 255) - (hr / 127.5 - 1)) ** 2).mean()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    loss.backward()
    optimizer.step()
    assert losses[0]["content_loss"].item() == pytest.approx(loss.item(), rel=1e-6)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(generator.state_dict()[name], value)


@pytest.mark.parametrize("penalty", [0, 0.5])
def test_an_adversarial_update_equals_the_equations_written_out(penalty):
    generator, discriminator, lr, hr = tiny()
    # Plain gradient descent: Adam's first step is the gradient's sign, which is chance where it is almost zero.
    losses = list(solver.alternating_epoch(learner(generator, 0.1), learner(discriminator, 0.1),
                                           [(utils.to_unit(lr), utils.to_signed(hr))],
                                           solver.make_content_loss(MSE), 1e-2, penalty))

    g, d, lr, hr = tiny()
    g_optimizer, d_optimizer = (torch.optim.SGD(n.parameters(), lr=0.1) for n in (g, d))
    lr, hr = lr / 255, hr / 127.5 - 1
    sr = g(lr)
    d_loss = -torch.log(torch.sigmoid(d(hr))).mean() - torch.log(1 - torch.sigmoid(d(sr.detach()))).mean()
    if penalty:
        slopes = torch.autograd.functional.jacobian(lambda x: d(x).sum(), hr[:2], create_graph=True)
        (d_loss + penalty * (slopes**2).sum() / 2 / 2).backward()  # the mean of two pictures
    else:
        d_loss.backward()
    d_optimizer.step()
    adversarial = -torch.log(torch.sigmoid(d(sr))).mean()
    content = F.mse_loss(sr, hr)
    g_optimizer.zero_grad()
    (content + 1e-2 * adversarial).backward()
    g_optimizer.step()

    for name, value in dict(discriminator_loss=d_loss, adversarial_loss=adversarial, content_loss=content).items():
        assert losses[0][name].item() == pytest.approx(value.item(), rel=1e-5)
    for mine, plain in [(generator, g), (discriminator, d)]:
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(mine.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_a_lazy_penalty_is_as_many_times_as_heavy_and_left_out_between():
    def updated(*penalty, number=0):
        generator, discriminator, lr, hr = tiny()
        judge = learner(discriminator, 0.1)
        judge.update = number
        list(solver.alternating_epoch(learner(generator, 0.1), judge, [(utils.to_unit(lr), utils.to_signed(hr))],
                                      solver.make_content_loss(MSE), 1e-2, *penalty))
        return discriminator.state_dict()

    lazy = {number: updated(0.25, 3, number=number) for number in range(4)}
    assert equal(lazy[0], lazy[3]) and equal(lazy[1], lazy[2]) and not equal(lazy[0], lazy[1])
    assert equal(lazy[0], updated(0.75)) and equal(lazy[1], updated(0))


def test_the_vgg_loss_is_the_mean_square_between_features(vgg19_weights):
    cfg = solver.settings("paper", content_loss="vgg22", vgg_weights=vgg19_weights[0])
    loss = solver.make_content_loss(cfg)
    features = vgg.VGGFeatures(2, 2, vgg19_weights[0])
    sr, hr = (torch.rand(1, 3, 16, 16) * 2 - 1).requires_grad_(), torch.rand(1, 3, 16, 16) * 2 - 1
    value = loss(sr, hr)
    assert value.item() == pytest.approx(F.mse_loss(features(sr), features(hr)).item(), rel=1e-5)
    value.backward()
    assert sr.grad.abs().sum() > 0


def test_several_terms_of_vgg_cost_one_pass_and_are_what_each_alone_would_be(vgg19_weights, monkeypatch):
    terms = {"vgg22": (2, 2), "pool3": (3, None), "vgg34": (3, 4), "vgg11": (1, 1)}
    cfg = solver.settings("paper", content_loss="2 mse + " + " + ".join(f"0.5 {name}" for name in terms),
                          vgg_weights=vgg19_weights[0])
    loss = solver.make_content_loss(cfg)
    sr, hr = (torch.rand(1, 3, 16, 16) * 2 - 1).requires_grad_(), torch.rand(1, 3, 16, 16) * 2 - 1
    each = [solver.vgg_loss(vgg.VGGFeatures(*layer, vgg19_weights[0]), sr, hr) for layer in terms.values()]
    wanted = 2 * F.mse_loss(sr, hr) + 0.5 * sum(each)
    convolutions, convolve = [], F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *a, **k: convolutions.append(1) or convolve(*a, **k))
    value = loss(sr, hr)
    assert len(convolutions) == 2 * (2 + 2 + 4)  # those before the third pooling, for either picture
    torch.testing.assert_close(value, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(x, sr)[0] for x in (value, wanted)))


def test_a_layer_that_vgg16_lacks_is_refused_at_once_beside_a_deeper_one(vgg16_weights):
    with pytest.raises(ValueError, match=r"VGG16 has no layer φ\(3,4\)"):
        solver.make_content_loss(solver.settings("paper", content_loss="vgg34 + vgg42", vgg_weights=vgg16_weights[0]))


def test_training_learns(small_settings):
    trainer = train(small_settings, warmup_epochs=8, adversarial_epochs=1, patches_per_picture=40, channels=16)
    warm = [row["content_loss"] for row in trainer.history if row["phase"] == "warmup"]
    assert warm[-1] < warm[0] / 3
    assert trainer.history[-2]["psnr"] > trainer.history[0]["psnr"] + 1


def test_the_command_line(small_settings, tmp_path):
    changes = [f"--{name}={value}" for name, value in small_settings.items()
               if value is not None and name not in ("clip_gradients", "adversarial_epochs")]
    command = [ROOT / "solver.py", "--recipe", "demo", *changes]
    done = python(*command, "--adversarial_epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warmup 2/2" in done.stdout and (tmp_path / "runs/small/checkpoints/adversarial_001.pt").exists()
    done = python(*command, "--blocks=0", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == ("solver.py: error: blocks must be a whole number from 1 to 4096, not 0 "
                           "(residual blocks of the generator)\n")
    done = python(ROOT / "solver.py", "--help")
    assert done.returncode == 0 and "--warmup_lr" in done.stdout


def test_an_old_console_can_show_the_help():
    program = "\n".join([
        "import sys, solver, create_data_lists; from kit.compare import tables", "from contextlib import suppress",
        "for module in (solver, create_data_lists, tables):",
        "    with suppress(SystemExit): module.main(['--help'])", "solver.main(['--warmup_Ir', '1'])"])
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True,
                          env={**os.environ, "PYTHONIOENCODING": "cp1252"})
    assert done.stdout.count(b"usage: ") == 3, done.stderr
    assert done.returncode == 2 and b"did you mean '--warmup_lr'" in done.stderr


@pytest.mark.parametrize("act, words", [
    (lambda: solver.settings("dem"), "did you mean 'demo'"),
    (lambda: solver.settings("demo", warmup_Ir=1), "no setting 'warmup_Ir' .did you mean 'warmup_lr'"),
    (lambda: runs.load_checkpoint(ROOT / "README.md"), "README.md: not a readable checkpoint"),
])
def test_mistakes_get_one_sentence(act, words):
    with pytest.raises(ValueError, match=words) as caught:
        act()
    assert len(str(caught.value)) < 250
