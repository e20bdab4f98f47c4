"""Quicker layers give the same."""

import pytest
import torch
from torch import nn

from kit.compute.layers import PART, FastPixelShuffle, FastPReLU, ThinConv2d, use_fast_layers


def test_quick_layers_change_neither_names_nor_results():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.PReLU(), nn.PixelShuffle(2), nn.PReLU(8),
                            nn.Conv2d(8, 3, 9, padding=4))
    names, lr = list(network.state_dict()), torch.rand(2, 3, 12, 14, requires_grad=True)
    plain = network(lr)
    plain.square().sum().backward()
    wanted = [lr.grad.clone(), *(p.grad.clone() for p in network.parameters())]
    lr.grad = None
    network.zero_grad()
    use_fast_layers(network)
    assert [type(m) for m in network] == [nn.Conv2d, FastPReLU, FastPixelShuffle, nn.PReLU,
                                          ThinConv2d]
    assert list(network.state_dict()) == names
    torch.testing.assert_close(network(lr), plain)
    network(lr).square().sum().backward()
    for value, gradient in zip([lr, *network.parameters()], wanted):
        torch.testing.assert_close(value.grad, gradient, rtol=1e-4, atol=1e-3)


def test_the_way_back_through_a_quick_shuffle_is_that_of_pytorch():
    lr, gradient = torch.rand(2, 12, 4, 6).bfloat16().requires_grad_(), torch.rand(2, 3, 8, 12).bfloat16()
    for layer in (nn.PixelShuffle(2), use_fast_layers(nn.Sequential(nn.PixelShuffle(2)))):
        layer(lr).backward(gradient)
    assert type(layer[0]) is FastPixelShuffle
    torch.testing.assert_close(lr.grad, 2 * torch.nn.functional.pixel_unshuffle(gradient, 2), rtol=0, atol=0)


def test_the_gradient_of_a_quick_layer_can_itself_be_differentiated():
    """As a penalty on a discriminator's slope asks for, also in phases that the kit knows nothing of."""
    found = []
    for change in (lambda network: network, use_fast_layers):
        torch.manual_seed(0)
        network = change(nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(), nn.PixelShuffle(2), nn.PReLU(), nn.Flatten(),
                                       nn.Linear(2 * 12 * 12, 1)))
        pictures = torch.rand(2, 3, 8, 8, requires_grad=True)
        gradient, = torch.autograd.grad(network(pictures).sum(), pictures, create_graph=True)
        gradient.square().sum().backward()
        found.append([torch.zeros_like(weight) if weight.grad is None else weight.grad
                      for weight in network.parameters()])
    assert found[1][2].abs() > 0  # of a slope
    for mine, wanted in zip(*found):
        torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize("count", [257, PART + 257])
def test_the_gradient_of_a_slope_is_not_rounded_to_the_few_bits_of_what_it_is_summed_of(count):
    layer = use_fast_layers(nn.Sequential(nn.PReLU()))
    layer(torch.full((1, 1, 1, count), -1.0).bfloat16()).float().sum().backward()
    assert layer[0].weight.grad.item() == -count  # in bf16 256 comes before 258
