"""The text of a content loss, such as "mse + 2e-6 vgg54": its terms, and the loss as a formula."""

import re

# Terms that do without VGG's weights, a large download, and their symbols in formulas.
PIXEL_TERMS = {"mse": "l_{MSE}", "lr_consistency": "l_{LR}", "flat_mse": "l_{flat}", "mesh_mse": "l_{mesh}"}
OLDER_TERMS = {"low": "lr_consistency"}  # as texts of older runs have them


def content_terms(text):
    """The terms of a content loss such as "mse + 2e-6 vgg54", as a dictionary: name → weight.

    Names are `mse` (eq. 4), `lr_consistency` (the same after both were made small), `flat_mse` (the same where the
    original is flat), `mesh_mse` (of what comes again with each pixel of the low resolution), `vgg54`, `vgg22`, … for
    features φ(5,4), φ(2,2), … (eq. 5), and `pool1` to `pool5` for the maps after VGG's poolings. A term without a
    number has the weight 1.
    Raises ValueError for any other text.
    """
    terms = {}
    for part in str(text).split(" + "):
        found = re.fullmatch(r"\s*(?:([\d.]+(?:e[+-]?\d+)?)\s*\*?\s+)?(\w+)\s*", part)
        name = found and OLDER_TERMS.get(found[2], found[2])
        if not found or name in terms or name not in PIXEL_TERMS and vgg_layer(name) is None:
            raise ValueError(f"content_loss: {part.strip()!r} is not a term such as mse, lr_consistency, "
                             f"flat_mse, mesh_mse, vgg54 or 0.006 vgg22")
        terms[name] = float(found[1] or 1)
    return terms


def vgg_layer(name):
    """The layer of VGG that a term stands for: (i, j) for φ(i,j), (i, None) behind pooling i; None for other terms."""
    found = re.fullmatch(r"vgg([12])([12])|vgg([345])([1-4])|pool([1-5])", name)
    if not found:
        return None
    i, *j = [int(digit) for digit in found.groups() if digit]
    return i, j[0] if j else None


def current_text(text):
    """A text of an older kit with the terms under their names of today."""
    return re.sub(r"[^\W\d]\w*", lambda word: OLDER_TERMS.get(word[0], word[0]), text)


def is_content_loss(value):
    try:
        return isinstance(value, str) and bool(content_terms(value))
    except ValueError:
        return False


def loss_formula(cfg):
    """The generator's loss in the adversarial phase with the factors in force (eq. 3), in LaTeX."""
    terms = [_times(weight) + _symbol(name) for name, weight in content_terms(cfg.content_loss).items()]
    return "l^{SR} = " + " + ".join([*terms, _times(cfg.adversarial_weight) + "l_{Gen}"])


def _symbol(name):
    if name in PIXEL_TERMS:
        return PIXEL_TERMS[name]
    i, j = vgg_layer(name)
    return rf"l_{{VGG/{i},{j}}}" if j else rf"l_{{VGG/pool{i}}}"


def _times(weight):
    if weight == 1:
        return ""
    mantissa, exponent = f"{weight:.3g}".split("e") if "e" in f"{weight:.3g}" else (f"{weight:.3g}", None)
    if exponent is None:
        return rf"{mantissa}\, "
    power = f"10^{{{int(exponent)}}}"
    return (power if mantissa == "1" else rf"{mantissa} \cdot {power}") + r"\, "
