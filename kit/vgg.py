"""VGG's features: what the paper's content loss compares pictures by (section 2.2.1), and a discriminator may see."""

from functools import partial
from pathlib import Path

import torch
from torch import nn

from imresize import imresize


class VGGFeatures(nn.Module):
    """φ(i,j): VGG's feature map after the activation of the j-th convolution before the i-th pooling.

    The feature space of the paper's content loss (section 2.2.1), trained on ImageNet and frozen here: VGG19's, as in
    the paper, or VGG16's where `weights` names a file of its.
    The paper divides the features by 12.75; here that is a factor of 1/12.75² on their squared distance, in the
    setting `content_loss`.

    Parameters
    ----------
    i, j : int
        φ(5,4) and φ(2,2) are the paper's VGG54 and VGG22. Without j: the map after the i-th pooling.
    weights : str or path, optional
        A local weights file in torchvision's format (`vgg19-dcbb9e9d.pth`, or `vgg16-397923af.pth`), of which only the
        convolutions are read. Without it torchvision downloads VGG19's once (548 MB) into its cache.
    normalise : bool
        Bring pictures to the colours that VGG was trained with; without, it sees [-1, 1] as it is.
    size : int, optional
        Resize pictures to this side first.

    Forward: N×3×H×W in [-1, 1] → N×C×H'×W'.

    Raises ValueError for a layer that the network does not have or a file with other weights, and
    ConnectionError with the way out when the download fails.
    """

    CONVOLUTIONS = {"VGG19": (2, 2, 4, 4, 4), "VGG16": (2, 2, 3, 3, 3)}  # before each of the five poolings

    def __init__(self, i=5, j=4, weights=None, normalise=True, size=None):
        super().__init__()
        self._check_layer("VGG19", i, j)  # the deeper one: before a download in vain
        state = _weights(weights)
        network = "VGG19" if "features.34.weight" in state else "VGG16"  # the last convolution of VGG19
        import torchvision.models  # here: it costs a second that MSE training need not pay

        with torch.device("meta"):  # without drawing random weights first
            features = getattr(torchvision.models, network.lower())().features
        try:
            features.load_state_dict({name.removeprefix("features."): value for name, value in state.items()
                                      if str(name).startswith("features.")}, assign=True)
        except RuntimeError as error:
            raise ValueError(f"vgg_weights: {weights} holds neither torchvision's VGG19 nor its VGG16. "
                             f"{_way_out()}") from error
        self.network = network
        self.layers = features[: self._end(i, j)].eval().requires_grad_(False)
        self.normalise, self.size = normalise, size
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, picture):
        return self.layers(self._as_trained(picture))

    def maps(self, picture):
        """The maps before each pooling on the way, the finest first: a list of N×C×H'×W'."""
        return self._maps(picture, [end for end, layer in enumerate(self.layers) if isinstance(layer, nn.MaxPool2d)])

    def several(self, layers):
        """A function of a picture that gives the maps of `layers` in one pass, a list of N×C×H'×W'.

        They are pairs (i, j), none deeper than its own. Raises ValueError for one that the network does not have.
        """
        return partial(self._maps, ends=[self._end(i, j) for i, j in layers])

    def _maps(self, picture, ends):
        maps, x = {}, self._as_trained(picture)
        for end, layer in enumerate(self.layers[: max(ends, default=0)], start=1):
            x = layer(x)
            if end in ends:
                maps[end] = x
        return [maps[end] for end in ends]

    def _as_trained(self, picture):
        """A picture as VGG knows them."""
        if self.size:
            picture = imresize(picture, output_shape=(self.size, self.size))
        return ((picture + 1) / 2 - self.mean) / self.std if self.normalise else picture

    def _end(self, i, j):
        """After how many layers φ(i,j) is."""
        self._check_layer(self.network, i, j)
        # A pooling follows (2 × its convolutions) layers, so φ(i,j) ends 2j layers behind pooling i-1.
        return sum(2 * n + 1 for n in self.CONVOLUTIONS[self.network][: i - 1 if j else i]) + 2 * (j or 0)

    def _check_layer(self, network, i, j):
        convolutions = self.CONVOLUTIONS[network]
        if i not in range(1, 6) or j is not None and j not in range(1, convolutions[i - 1] + 1):
            raise ValueError(f"{network} has no layer φ({i},{j}): i runs from 1 to 5, and j from 1 to "
                             f"{', '.join(map(str, convolutions))} respectively")


def _way_out():
    from torchvision.models import VGG19_Weights

    return (f"Download {VGG19_Weights.IMAGENET1K_V1.url} on another machine and name the file in the setting "
            f'vgg_weights, or do without it: a content_loss of mse and lr_consistency, and discriminator="srgan".')


def _weights(path):
    if path is None:
        from torchvision.models import VGG19_Weights

        try:
            return VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except Exception as error:  # no network, a proxy's page, a full disk, a wrong checksum
            raise ConnectionError(f"the VGG19 weights could not be downloaded ({error}). {_way_out()}") from error
    if not Path(path).is_file():
        raise ValueError(f"vgg_weights: there is no file {path}. {_way_out()}")
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise ValueError(f"vgg_weights: {path} cannot be read ({error}). {_way_out()}") from error
