"""LPIPS: how different two pictures look to people, measured with a network's features."""

from pathlib import Path

import torch

from utils import to_batch, to_rgb, to_signed


def lpips():
    """LPIPS (Zhang et al., CVPR 2018; lower is better), as one of the measures that `score_sets` takes in `also`.

    The distance of AlexNet's features, weighted by what people find similar; unlike NIQE it knows the original, and
    unlike PSNR it forgives a texture that is not quite in its place. The network is that of torchmetrics, with
    AlexNet's weights from torchvision (a download of 233 MB, once).

    Returns a function of two uint8 pictures. Raises ImportError without torchmetrics, and ConnectionError where the
    weights can neither be found nor downloaded; both say what to do.
    """
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    except ImportError as error:
        raise ImportError("LPIPS is measured by torchmetrics; install it with: pip install torchmetrics") from error
    from torchvision.models import AlexNet_Weights

    weights = AlexNet_Weights.IMAGENET1K_V1
    try:
        weights.get_state_dict(progress=True, check_hash=True, weights_only=True)  # what torchmetrics loads after it
    except Exception as error:
        raise ConnectionError(f"AlexNet's weights are not there ({error}); put {weights.url} into "
                              f"{Path(torch.hub.get_dir(), 'checkpoints')}") from error
    network = LearnedPerceptualImagePatchSimilarity("alex").eval()

    def measure(picture, original):
        pair = [to_signed(to_batch(to_rgb(one))).clamp(-1, 1) for one in (picture, original)]
        with torch.no_grad():
            return float(network(*pair))

    return measure
