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


class ResidualBlock(nn.Module):
    """k3n64s1 → BN → PReLU → k3n64s1 → BN, and the block's input added back. N×C×H×W in and out."""

    def __init__(self, channels, batch_norm):
        super().__init__()
        self.body = nn.Sequential(
            conv(channels, channels, 3),
            *norm(channels, batch_norm),
            nn.PReLU(),
            conv(channels, channels, 3),
            *norm(channels, batch_norm),
        )

    def forward(self, x):
        return x + self.body(x)


class Generator(nn.Module):
    """SRResNet, the generator of the paper's figure 4. 1,549,462 parameters with the default settings.

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

    Forward: N×3×H×W in [0, 1] → N×3×(scale·H)×(scale·W), trained towards [-1, 1], not clipped.
    """

    def __init__(self, scale=4, channels=64, blocks=16, batch_norm=True, first_kernel=9, last_kernel=9):
        super().__init__()
        if scale not in (2, 4, 8):
            raise ValueError(f"scale must be 2, 4 or 8, not {scale!r}")
        for name, value in dict(channels=channels, blocks=blocks).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive whole number, not {value!r}")
        self.settings = dict(scale=scale, channels=channels, blocks=blocks, batch_norm=batch_norm,
                             first_kernel=first_kernel, last_kernel=last_kernel)
        self.scale = scale
        self.first = nn.Sequential(conv(3, channels, first_kernel), nn.PReLU())
        self.residual = nn.Sequential(
            *(ResidualBlock(channels, batch_norm) for _ in range(blocks)),
            conv(channels, channels, 3),
            *norm(channels, batch_norm),
        )
        self.upsample = nn.Sequential(*(
            nn.Sequential(conv(channels, 4 * channels, 3), nn.PixelShuffle(2), nn.PReLU())
            for _ in range(int(math.log2(scale)))
        ))
        self.last = conv(channels, 3, last_kernel)

    def forward(self, low):
        x = self.first(low)
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

    Forward: N×3×crop×crop in [-1, 1] → N×1 logits. The paper's final sigmoid belongs to the loss
    (binary cross-entropy with logits), which is the same function and numerically safe.
    """

    def __init__(self, crop=96, channels=64, dense=1024):
        super().__init__()
        if not isinstance(crop, int) or crop < 16 or crop % 16:
            raise ValueError(f"crop must be a multiple of 16, because the discriminator halves "
                             f"the picture four times, not {crop!r}")
        self.settings = dict(crop=crop, channels=channels, dense=dense)
        layers = [conv(3, channels, 3), nn.LeakyReLU(0.2)]
        width = channels
        for maps, stride in [(1, 2), (2, 1), (2, 2), (4, 1), (4, 2), (8, 1), (8, 2)]:
            layers += [conv(width, maps * channels, 3, stride), nn.BatchNorm2d(maps * channels),
                       nn.LeakyReLU(0.2)]
            width = maps * channels
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(width * (crop // 16) ** 2, dense),
            nn.LeakyReLU(0.2),
            nn.Linear(dense, 1),
        )

    def forward(self, picture):
        return self.classifier(self.features(picture))


class VGGFeatures(nn.Module):
    """φ(i,j): VGG19's feature map after the activation of the j-th convolution before the i-th pooling.

    The feature space of the paper's content loss (section 2.2.1), trained on ImageNet and frozen here.

    Parameters
    ----------
    i, j : int
        φ(5,4) and φ(2,2) are the paper's VGG54 and VGG22.
    weights : str or path, optional
        A local weights file in torchvision's format (`vgg19-dcbb9e9d.pth`). Without it torchvision
        downloads that file once (548 MB) into its cache.

    Forward: N×3×H×W in [-1, 1] → N×C×H'×W', the features divided by 12.75, the factor with which the
    paper brings the VGG loss to the size of the MSE loss (section 3.2).

    Raises ValueError for a layer that VGG19 does not have or a file with other weights, and
    ConnectionError with the way out when the download fails.
    """

    CONVOLUTIONS = (2, 2, 4, 4, 4)  # before each of the five poolings
    RESCALE = 1 / 12.75

    def __init__(self, i=5, j=4, weights=None):
        super().__init__()
        if i not in range(1, 6) or j not in range(1, self.CONVOLUTIONS[i - 1] + 1):
            raise ValueError(f"VGG19 has no layer φ({i},{j}): i runs from 1 to 5, and j from 1 to "
                             f"{', '.join(map(str, self.CONVOLUTIONS))} respectively")
        from torchvision.models import vgg19  # here: it costs a second that MSE training need not pay

        # A pooling follows (2 × its convolutions) layers, so φ(i,j) ends 2j layers behind pooling i-1.
        end = sum(2 * n + 1 for n in self.CONVOLUTIONS[: i - 1]) + 2 * j
        network = vgg19()
        network.load_state_dict(_vgg19_weights(weights, network.state_dict()))
        self.layers = network.features[:end].eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, picture):
        x = ((picture + 1) / 2 - self.mean) / self.std  # the range and colours VGG was trained with
        return self.layers(x) * self.RESCALE


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


def conv(inputs, outputs, kernel, stride=1):
    """A convolution that keeps height and width (divided by the stride), with bias."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


def norm(channels, batch_norm):
    return [nn.BatchNorm2d(channels)] if batch_norm else []


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
