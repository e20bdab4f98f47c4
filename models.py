"""The networks of SRGAN: generator (SRResNet), discriminator, and the VGG19 features of its content loss.

Source: Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial
Network", CVPR 2017, arXiv 1609.04802v5 ("the paper" below); the two architectures are its figure 4,
where k9n64s1 means a convolution with 9×9 kernels, 64 feature maps and stride 1.

Tensors are batches N×C×H×W. A generator takes low-resolution RGB in [0, 1] and gives high-resolution
RGB in [-1, 1], as in section 3.2 of the paper; discriminator and VGG read pictures in [-1, 1].
"""

import math
from pathlib import Path

import torch
from torch import nn

from imresize import imresize


class ResidualBlock(nn.Module):
    """k3n64s1 → BN → PReLU → k3n64s1 → BN, and the block's input added back. N×C×H×W in and out."""

    def __init__(self, channels, norm, activation, bias=True):
        super().__init__()
        self.body = nn.Sequential(
            conv(channels, channels, 3, bias=bias), *norm(channels), activation(channels),
            conv(channels, channels, 3, bias=bias), *norm(channels),
        )

    def forward(self, x):
        return x + self.body(x)


class Generator(nn.Module):
    """SRResNet, the generator of the paper's figure 4, and its relatives.

    With the default settings it is the paper's, with 1,549,462 parameters at scale 4.

    Parameters
    ----------
    scale : {2, 4, 8}
        How many times larger the output is; one pixel-shuffle stage doubles the size.
    channels, blocks : int
        Feature maps of every layer (the paper's 64) and residual blocks (its 16).
    batch_norm : bool
        Batch norm in the residual part, as in the paper. Small networks learn faster without.
    first_kernel, last_kernel : int
        Kernel sizes of the first and the last convolution (both 9 in the paper).
    activation : {"prelu", "prelu_channels", "relu"}
        PReLU with one slope per layer (the paper) or per feature map (Keras' `shared_axes`), or ReLU.
    tanh : bool
        End with tanh. The paper's figure has none.
    signed_input : bool
        Let the first convolution see the low resolution in [-1, 1] instead of [0, 1].
    first_norm : bool
        Batch norm after the first convolution, too.
    block_bias : bool
        Bias in the convolutions of the residual blocks.
    bn_momentum, trunk_bn_momentum, bn_eps : float
        Of batch norm in the blocks, and of the one behind them. PyTorch's momentum is the share of the
        new batch: what Keras and Paddle call 0.8 is 0.2 here.

    Forward: N×3×H×W in [0, 1] → N×3×(scale·H)×(scale·W), trained towards [-1, 1], not clipped.
    """

    def __init__(self, scale=4, channels=64, blocks=16, batch_norm=True, first_kernel=9, last_kernel=9,
                 activation="prelu", tanh=False, signed_input=False, first_norm=False, block_bias=True,
                 bn_momentum=0.1, trunk_bn_momentum=0.1, bn_eps=1e-5):
        super().__init__()
        self.settings = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        if scale not in (2, 4, 8):
            raise ValueError(f"scale must be 2, 4 or 8, not {scale!r}")
        for name, value in dict(channels=channels, blocks=blocks).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive whole number, not {value!r}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")
        self.scale, self.signed_input = scale, signed_input
        act = ACTIVATIONS[activation]

        def norm(features, momentum=bn_momentum):
            return [nn.BatchNorm2d(features, bn_eps, momentum)] if batch_norm else []

        self.first = nn.Sequential(conv(3, channels, first_kernel), *(norm(channels, trunk_bn_momentum) * first_norm),
                                   act(channels))
        self.residual = nn.Sequential(
            *(ResidualBlock(channels, norm, act, block_bias) for _ in range(blocks)),
            conv(channels, channels, 3), *norm(channels, trunk_bn_momentum),
        )
        self.upsample = nn.Sequential(*(
            nn.Sequential(conv(channels, 4 * channels, 3), nn.PixelShuffle(2), act(channels))
            for _ in range(int(math.log2(scale)))
        ))
        self.last = nn.Sequential(ThinConv2d(channels, 3, last_kernel, padding=last_kernel // 2), *[nn.Tanh()] * tanh)

    def forward(self, low):
        x = self.first(2 * low - 1 if self.signed_input else low)
        x = x + self.residual(x)  # the long skip connection
        return self.last(self.upsample(x))

    @property
    def reach(self):
        """How many low-resolution pixels away an input pixel can still change an output pixel."""
        pixels, pixel_size = 0, 1.0
        for module in self.modules():  # in the order in which data flows
            if isinstance(module, nn.Conv2d):
                pixels += pixel_size * (module.kernel_size[0] // 2)
            elif isinstance(module, nn.PixelShuffle):
                pixel_size /= module.upscale_factor
        return math.ceil(pixels)


class Discriminator(nn.Module):
    """The discriminator of the paper's figure 4. 23,565,505 parameters with the default settings.

    Eight 3×3 convolutions whose maps double from 64 to 512 while every second one halves the picture,
    LeakyReLU 0.2, batch norm after all but the first, then two dense layers.

    Parameters
    ----------
    crop : int
        Side of the square pictures it judges, in pixels; a multiple of 16 (96 in the paper).
    channels : int
        Feature maps of the first convolution; the last has eight times as many.
    dense : int
        Width of the first dense layer.
    batch_norm : bool
        Batch norm after the second and later convolutions.
    flatten : bool
        Whether the dense layers see all positions together, as in the paper, or act at each position of the
        last feature map (Keras' Dense without Flatten), which gives one logit for each.
    bn_momentum, bn_eps : float
        As for `Generator`.

    Forward: N×3×crop×crop in [-1, 1] → N×1 logits, or N×1×crop/16×crop/16 without `flatten`. The sigmoid
    belongs to the loss (cross-entropy with logits), which is the same function and numerically safe.
    """

    def __init__(self, crop=96, channels=64, dense=1024, batch_norm=True, flatten=True, bn_momentum=0.1, bn_eps=1e-5):
        super().__init__()
        if not isinstance(crop, int) or crop < 16 or crop % 16:
            raise ValueError(f"crop must be a multiple of 16, because the discriminator halves "
                             f"the picture four times, not {crop!r}")
        layers = [conv(3, channels, 3), nn.LeakyReLU(0.2)]
        width = channels
        for maps, stride in [(1, 2), (2, 1), (2, 2), (4, 1), (4, 2), (8, 1), (8, 2)]:
            layers += [conv(width, maps * channels, 3, stride),
                       *[nn.BatchNorm2d(maps * channels, bn_eps, bn_momentum)] * batch_norm, nn.LeakyReLU(0.2)]
            width = maps * channels
        self.features = nn.Sequential(*layers)
        if flatten:
            head = [nn.Flatten(), nn.Linear(width * (crop // 16) ** 2, dense), nn.LeakyReLU(0.2), nn.Linear(dense, 1)]
        else:  # a dense layer at each position is a 1×1 convolution
            head = [conv(width, dense, 1), nn.LeakyReLU(0.2), conv(dense, 1, 1)]
        self.classifier = nn.Sequential(*head)

    def forward(self, picture):
        return self.classifier(self.features(picture))


class StridedDiscriminator(nn.Module):
    """The discriminator of the Paddle recipe: 4×4 convolutions of stride 2 up to 2048 maps, residual end.

    64, 128, …, 2048, 1024 and 512 maps, each convolution with TensorFlow's "same" padding, batch norm (not
    after the first) and LeakyReLU 0.2; then a residual 3×3 convolution and one dense layer. The source
    declares two more convolutions and a dense layer whose results it never uses; they are left out.

    Parameters as for `Discriminator`. Forward: N×3×crop×crop in [-1, 1] → N×1 logits.
    """

    def __init__(self, crop=384, channels=64, bn_momentum=0.01, bn_eps=1e-3):
        super().__init__()
        if not isinstance(crop, int) or crop < 1:
            raise ValueError(f"crop must be a positive whole number, not {crop!r}")
        layers, width = [SameConv2d(3, channels, 4, 2), nn.LeakyReLU(0.2)], channels
        for maps in (2, 4, 8, 16, 32, 16, 8):
            layers += [SameConv2d(width, maps * channels, 4, 2), nn.BatchNorm2d(maps * channels, bn_eps, bn_momentum),
                       nn.LeakyReLU(0.2)]
            width = maps * channels
            crop = math.ceil(crop / 2)
        crop = math.ceil(crop / 2)
        self.features = nn.Sequential(*layers)
        self.residual = nn.Sequential(conv(width, width, 3), nn.BatchNorm2d(width, bn_eps, bn_momentum),
                                      nn.LeakyReLU(0.2))
        self.classifier = nn.Sequential(nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(width * crop**2, 1))

    def forward(self, picture):
        x = self.features(picture)
        return self.classifier(x + self.residual(x))


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: the output has ceil(size / stride) rows and columns."""

    def forward(self, x):
        kernel, stride = self.kernel_size[0], self.stride[0]
        padding = []
        for size in (x.shape[-1], x.shape[-2]):
            missing = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            padding += [missing // 2, missing - missing // 2]
        return super().forward(nn.functional.pad(x, padding))


class VGGFeatures(nn.Module):
    """φ(i,j): VGG19's feature map after the activation of the j-th convolution before the i-th pooling.

    The feature space of the paper's content loss (section 2.2.1), trained on ImageNet and frozen here.

    Parameters
    ----------
    i, j : int
        φ(5,4) and φ(2,2) are the paper's VGG54 and VGG22. Without j: the map after the i-th pooling.
    weights : str or path, optional
        A local weights file in torchvision's format (`vgg19-dcbb9e9d.pth`). Without it torchvision
        downloads that file once (548 MB) into its cache.
    rescale : float
        Factor on the features. 1/12.75 brings the VGG loss to the size of the MSE loss (section 3.2).
    normalise : bool
        Bring pictures to the colours that VGG was trained with; without, it sees [-1, 1] as it is.
    size : int, optional
        Resize pictures to this side first.

    Forward: N×3×H×W in [-1, 1] → N×C×H'×W'.

    Raises ValueError for a layer that VGG19 does not have or a file with other weights, and
    ConnectionError with the way out when the download fails.
    """

    CONVOLUTIONS = (2, 2, 4, 4, 4)  # before each of the five poolings

    def __init__(self, i=5, j=4, weights=None, rescale=1 / 12.75, normalise=True, size=None):
        super().__init__()
        if i not in range(1, 6) or j is not None and j not in range(1, self.CONVOLUTIONS[i - 1] + 1):
            raise ValueError(f"VGG19 has no layer φ({i},{j}): i runs from 1 to 5, and j from 1 to "
                             f"{', '.join(map(str, self.CONVOLUTIONS))} respectively")
        from torchvision.models import vgg19  # here: it costs a second that MSE training need not pay

        # A pooling follows (2 × its convolutions) layers, so φ(i,j) ends 2j layers behind pooling i-1.
        end = sum(2 * n + 1 for n in self.CONVOLUTIONS[: i - 1 if j else i]) + 2 * (j or 0)
        network = vgg19()
        network.load_state_dict(_vgg19_weights(weights, network.state_dict()))
        self.layers = network.features[:end].eval().requires_grad_(False)
        self.rescale, self.normalise, self.size = rescale, normalise, size
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, picture):
        if self.size:
            picture = imresize(picture, output_shape=(self.size, self.size))
        if self.normalise:
            picture = ((picture + 1) / 2 - self.mean) / self.std
        return self.layers(picture) * self.rescale


def _vgg19_weights(path, wanted):
    from torchvision.models import VGG19_Weights

    url = VGG19_Weights.IMAGENET1K_V1.url
    help_text = (f"Download {url} on another machine and name the file in the setting vgg_weights, "
                 f'or train with content_loss="mse", which needs no weights.')
    if path is None:
        try:
            return VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
        except Exception as error:  # no network, a proxy's page, a full disk, a wrong checksum
            raise ConnectionError(f"the VGG19 weights could not be downloaded ({error}). {help_text}") from error
    if not Path(path).is_file():
        raise ValueError(f"vgg_weights: there is no file {path}. {help_text}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        fits = all(name in state and state[name].shape == wanted[name].shape for name in wanted)
    except Exception as error:
        raise ValueError(f"vgg_weights: {path} cannot be read ({error}). {help_text}") from error
    if not fits:
        raise ValueError(f"vgg_weights: {path} does not hold torchvision's VGG19. {help_text}")
    return state


def conv(inputs, outputs, kernel, stride=1, bias=True):
    """A convolution that keeps height and width (divided by the stride)."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)


class ThinConv2d(nn.Conv2d):
    """A convolution with few outputs and a large kernel, such as the generator's last, quick on CPUs.

    There, k×k kernels with 3 outputs leave most of the vector units idle. So it is done in two steps with
    the same sum: first k×1 kernels with 3·k outputs, one for each column of the kernel, then each of
    these is shifted to its column and added up, by a 1×k convolution of ones and zeros.
    """

    def forward(self, x):
        outputs, inputs, k, _ = self.weight.shape
        if x.device.type != "cpu" or k < 5:
            return super().forward(x)
        columns = self.weight.permute(3, 0, 1, 2).reshape(k * outputs, inputs, k, 1)
        kernel = torch.zeros(outputs, k * outputs, 1, k)
        for j in range(k):
            kernel[:, j * outputs : (j + 1) * outputs, 0, j] = torch.eye(outputs)
        x = nn.functional.conv2d(x, columns, padding=(k // 2, 0))
        return nn.functional.conv2d(x, kernel.to(x), self.bias, padding=(0, k // 2))


class PReLU(nn.PReLU):
    """nn.PReLU with one slope, with a quicker backward pass on CPUs."""

    def forward(self, x):
        return _SlopeForAll.apply(x, self.weight) if x.device.type == "cpu" else super().forward(x)


class _SlopeForAll(torch.autograd.Function):
    """max(x, 0) + slope · min(x, 0): PyTorch's own backward pass sums the slope's gradient many times slower."""

    @staticmethod
    def forward(ctx, x, slope):
        ctx.save_for_backward(x, slope)
        return nn.functional.leaky_relu(x, slope.item())

    @staticmethod
    def backward(ctx, gradient):
        x, slope = ctx.saved_tensors
        of_x = torch.ops.aten.leaky_relu_backward(gradient, x, slope.item(), False)
        last = (0, *range(2, x.dim()), 1)  # channels last: flat without a copy, as training lays them out
        of_slope = torch.dot(gradient.permute(last).reshape(-1), x.clamp(max=0).permute(last).reshape(-1))
        return of_x, of_slope.to(slope.dtype).view_as(slope)


# What follows a convolution with so many feature maps.
ACTIVATIONS = {
    "prelu": lambda channels: PReLU(),
    "prelu_channels": nn.PReLU,
    "relu": lambda channels: nn.ReLU(),
}


def layer_table(network, *shape):
    """The layers of a network with their output shapes and parameters, as text.

    `shape` is that of one input without the batch: `print(layer_table(Generator(), 3, 24, 24))`.
    The total in the last row also counts parameters that belong to no single layer (none here).
    """
    rows = []

    def record(name):
        def hook(module, inputs, output):
            count = sum(p.numel() for p in module.parameters())
            rows.append((name, _describe(module), "×".join(map(str, output.shape[1:])), count))
        return hook

    leaves = [(name, m) for name, m in network.named_modules() if not list(m.children())]
    hooks = [module.register_forward_hook(record(name)) for name, module in leaves]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *shape, device=next(network.parameters()).device))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    lines = [f"{'layer':<22}{'what':<22}{'output C×H×W':<16}{'parameters':>12}"]
    lines += [f"{name:<22}{what:<22}{size:<16}{count:>12,}" for name, what, size, count in rows]
    total = sum(p.numel() for p in network.parameters())
    return "\n".join([*lines, f"{'total':<60}{total:>12,}"])


def _describe(module):
    """A layer in the notation of the paper's figure 4."""
    if isinstance(module, nn.Conv2d):
        return f"conv k{module.kernel_size[0]}n{module.out_channels}s{module.stride[0]}"
    if isinstance(module, nn.Linear):
        return f"dense {module.out_features}"
    return type(module).__name__
