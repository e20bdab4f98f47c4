"""The networks of SRGAN: the generator (SRResNet) and the discriminator.

Source: Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial
Network", CVPR 2017, arXiv 1609.04802v5 ("the paper" below); the two architectures are its figure 4,
where k9n64s1 means a convolution with 9×9 kernels, 64 feature maps and stride 1.

What the kit needs from this file, whatever networks are in it, are two functions at its end:

* `make_generator(cfg)` gives a network N×3×H×W in [0, 1] → N×3×(scale·H)×(scale·W), for any H and W, with
  low-resolution RGB going in and RGB that is trained towards [-1, 1] coming out (section 3.2 of the paper);
* `make_discriminator(cfg)` gives a network N×3×crop×crop in [-1, 1] → logits, of any shape N×….

`cfg` has the settings (see `kit/settings/schema.py`); use what your networks have a use for.
`tests/test_models.py` says what is missing.
"""

import math

# BEGIN SOLUTION NO PROMPT
import torch

# END SOLUTION
from torch import nn

# BEGIN SOLUTION NO PROMPT
from kit.vgg import VGGFeatures

# END SOLUTION


class ResidualBlock(nn.Module):
    """k3n64s1 → BN → PReLU → k3n64s1 → BN, and the block's input added back. N×C×H×W in and out.

    `norm(channels)` gives a list of what stands for BN (an empty one without batch norm), `activation(channels)` the
    activation; `bias` is that of both convolutions.
    """

    def __init__(self, channels, norm, activation, bias=True):
        super().__init__()
        # BEGIN SOLUTION
        self.body = nn.Sequential(
            conv(channels, channels, 3, bias=bias), *norm(channels), activation(channels),
            conv(channels, channels, 3, bias=bias), *norm(channels),
        )
        # END SOLUTION

    def forward(self, x):
        # BEGIN SOLUTION
        return x + self.body(x)
        # END SOLUTION


class Generator(nn.Module):
    """SRResNet, the generator of the paper's figure 4, and its relatives.

    k9n64s1 → PReLU; 16 residual blocks, k3n64s1 → BN, and what went into the first block added back; for each doubling
    of the size k3n256s1 → PixelShuffle(2) → PReLU; k9n3s1. With the default settings it is the paper's, with
    1,549,462 parameters at scale 4. The batch norm outside the blocks has `trunk_bn_momentum`.

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
        if scale not in (2, 4, 8):
            raise ValueError(f"scale must be 2, 4 or 8, not {scale!r}")
        for name, value in dict(channels=channels, blocks=blocks).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive whole number, not {value!r}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")
        self.signed_input = signed_input
        act = ACTIVATIONS[activation]

        def norm(features, momentum=bn_momentum):
            return [nn.BatchNorm2d(features, bn_eps, momentum)] if batch_norm else []

        # BEGIN SOLUTION
        self.first = nn.Sequential(conv(3, channels, first_kernel),
                                   *(norm(channels, trunk_bn_momentum) if first_norm else []), act(channels))
        self.residual = nn.Sequential(
            *(ResidualBlock(channels, norm, act, block_bias) for _ in range(blocks)),
            conv(channels, channels, 3), *norm(channels, trunk_bn_momentum),
        )
        self.upsample = nn.Sequential(*(
            nn.Sequential(conv(channels, 4 * channels, 3), nn.PixelShuffle(2), act(channels))
            for _ in range(int(math.log2(scale)))
        ))
        self.last = nn.Sequential(conv(channels, 3, last_kernel), *([nn.Tanh()] if tanh else []))
        # END SOLUTION

    def forward(self, lr):
        # BEGIN SOLUTION
        x = self.first(2 * lr - 1 if self.signed_input else lr)
        x = x + self.residual(x)  # the long skip connection
        return self.last(self.upsample(x))
        # END SOLUTION


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
    halving_kernel : {3, 4}
        Kernel size of the convolutions that halve the picture (3 in the paper). 3×3 kernels two pixels apart see every
        second row and column twice as often as the others, and so does the gradient on its way back: it teaches the
        generator a faint mesh (Odena et al., "Deconvolution and Checkerboard Artifacts", Distill 2016). 4×4 kernels
        see all pixels equally often.
    bn_momentum, bn_eps : float
        As for `Generator`.

    Forward: N×3×crop×crop in [-1, 1] → N×1 logits, or N×1×crop/16×crop/16 without `flatten`. The sigmoid
    belongs to the loss (cross-entropy with logits), which is the same function and numerically safe.
    """

    def __init__(self, crop=96, channels=64, dense=1024, batch_norm=True, flatten=True, halving_kernel=3,
                 bn_momentum=0.1, bn_eps=1e-5):
        super().__init__()
        if not isinstance(crop, int) or crop < 16 or crop % 16:
            raise ValueError(f"crop must be a multiple of 16, because the discriminator halves "
                             f"the picture four times, not {crop!r}")
        # BEGIN SOLUTION
        layers = [conv(3, channels, 3), nn.LeakyReLU(0.2)]
        width = channels
        for maps, stride in [(1, 2), (2, 1), (2, 2), (4, 1), (4, 2), (8, 1), (8, 2)]:
            layers.append(conv(width, maps * channels, halving_kernel if stride == 2 else 3, stride))
            width = maps * channels
            layers += [nn.BatchNorm2d(width, bn_eps, bn_momentum)] if batch_norm else []
            layers.append(nn.LeakyReLU(0.2))
        self.features = nn.Sequential(*layers)
        if flatten:
            head = [nn.Flatten(), nn.Linear(width * (crop // 16) ** 2, dense), nn.LeakyReLU(0.2), nn.Linear(dense, 1)]
        else:  # a dense layer at each position is a 1×1 convolution
            head = [conv(width, dense, 1), nn.LeakyReLU(0.2), conv(dense, 1, 1)]
        self.classifier = nn.Sequential(*head)
        self.per_sample = not batch_norm  # whatever pictures come with it: two batches can go as one
        # END SOLUTION

    def forward(self, picture):
        # BEGIN SOLUTION
        return self.classifier(self.features(picture))
        # END SOLUTION


# BEGIN SOLUTION NO PROMPT
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


class FeatureDiscriminator(nn.Module):
    """A discriminator that sees pictures as a VGG trained on photographs sees them, and judges every place in them.

    Heads on VGG's maps before its first four poolings give logits at an eighth of the picture's size: 1×1 convolution
    to `channels` maps, LeakyReLU 0.2; 4×4 convolutions, each with batch norm and LeakyReLU, that halve the size and
    double the maps, up to four times `channels`; 3×3 convolution to twice `channels`, batch norm, LeakyReLU; 3×3
    convolution to the logit. Only the heads learn, and far sooner than the paper's discriminator, because VGG knows
    already how textures look. After SRFeat (Park et al., ECCV 2018), which judges features of one depth and the
    picture, and Projected GANs (Sauer et al., arXiv 2111.01007), which judge several depths.

    `features` is a `kit.vgg.VGGFeatures` behind the fourth pooling; the others are as for `Discriminator`.
    Forward: N×3×H×W in [-1, 1], at least 16×16, → N×(4·⌊H/8⌋·⌊W/8⌋) logits.
    """

    def __init__(self, features, channels=64, bn_momentum=0.1, bn_eps=1e-5):
        super().__init__()
        self.features = features
        self.heads = nn.ModuleList(self._head(maps, halvings, channels, bn_momentum, bn_eps)
                                   for maps, halvings in [(64, 3), (128, 2), (256, 1), (512, 0)])

    @staticmethod
    def _head(maps, halvings, channels, bn_momentum, bn_eps):
        def stage(inputs, outputs, kernel, stride=1):
            return [conv(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs, bn_eps, bn_momentum),
                    nn.LeakyReLU(0.2)]

        layers, width = [conv(maps, channels, 1), nn.LeakyReLU(0.2)], channels
        for _ in range(halvings):
            wider = min(2 * width, 4 * channels)
            layers += stage(width, wider, 4, stride=2)
            width = wider
        return nn.Sequential(*layers, *stage(width, 2 * channels, 3), conv(2 * channels, 1, 3))

    def forward(self, picture):
        maps = self.features.maps(picture)
        return torch.cat([head(seen).flatten(1) for head, seen in zip(self.heads, maps)], dim=1)


# END SOLUTION
class HighFrequencyInput(nn.Module):
    """A discriminator that sees only detail: what is lost when the picture is made small, four times as strong.

    Colours and shades are the content loss's to hold; what a low resolution has lost is the discriminator's to judge.
    Seeing nothing else it learns in far fewer updates, and without batch norm, if its weights begin as He et al.
    propose (arXiv 1502.01852), so that nothing fades on the way through its layers.
    """

    def __init__(self, network):
        super().__init__()
        self.network, self.per_sample = network, getattr(network, "per_sample", False)
        for layer in network.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, a=0.2)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, picture):
        picture = picture.float()  # a difference of what is nearly equal would lose its digits in 16 bits
        small = nn.functional.avg_pool2d(picture, 4)
        rest = nn.functional.interpolate(small, picture.shape[-2:], mode="bilinear", align_corners=False)
        return self.network(4 * (picture - rest))


def conv(inputs, outputs, kernel, stride=1, bias=True):
    """A convolution that keeps height and width (divided by the stride, which an even kernel needs)."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=bias)


# What follows a convolution with so many feature maps.
ACTIVATIONS = {
    "prelu": lambda channels: nn.PReLU(),
    "prelu_channels": nn.PReLU,
    "relu": lambda channels: nn.ReLU(),
}


# ------------------------------------------------------------------------------- what the kit calls


def make_generator(cfg):
    """The generator of these settings, with random weights. (Of `cfg` only the section "generator" is there.)"""
    return Generator(cfg.scale, cfg.channels, cfg.blocks, cfg.batch_norm, cfg.first_kernel, cfg.last_kernel,
                     cfg.activation, cfg.tanh, cfg.signed_input, cfg.first_norm, cfg.block_bias, cfg.bn_momentum,
                     cfg.trunk_bn_momentum, cfg.bn_eps)


def make_discriminator(cfg):
    """The discriminator of these settings, with random weights."""
    # BEGIN SOLUTION NO PROMPT
    if cfg.discriminator == "strided":
        return StridedDiscriminator(cfg.crop, cfg.discriminator_channels, cfg.bn_momentum, cfg.bn_eps)
    if cfg.discriminator == "features":
        features = VGGFeatures(4, None, cfg.vgg_weights, cfg.vgg_normalise, cfg.vgg_size)
        return FeatureDiscriminator(features, cfg.discriminator_channels, cfg.bn_momentum, cfg.bn_eps)
    # END SOLUTION
    # BEGIN PROMPT
    # if cfg.discriminator != "srgan":
    #     raise ValueError(f"discriminator: {cfg.discriminator!r} is not in the student edition (nor is the recipe "
    #                      f"paddle, which has 'strided'); use 'srgan'")
    # END PROMPT
    network = Discriminator(cfg.crop, cfg.discriminator_channels, cfg.discriminator_dense,
                            cfg.discriminator_batch_norm, cfg.discriminator_flatten, cfg.discriminator_halving_kernel,
                            cfg.bn_momentum, cfg.bn_eps)
    return HighFrequencyInput(network) if cfg.discriminator_detail else network
