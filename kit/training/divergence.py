"""When training has diverged: how it is seen, and what to do about it."""

import math

from kit.runs import provenance

FALL = 10  # dB below its best epoch: no training that goes on falls so deep in most pictures


def check_losses(means, phase, state, cfg):
    """Raise FloatingPointError when a mean loss is no number."""
    if not all(map(math.isfinite, means.values())):
        raise FloatingPointError(_no_number("a loss", phase, state, cfg))


def check_weights(networks, phase, state, cfg):
    """Raise FloatingPointError when a weight is no number, or so large that its square is none."""
    for network in networks:
        if not networks.is_finite(network):
            raise FloatingPointError(_no_number(f"a weight of {type(network).__name__}", phase, state, cfg))


def check_score(judged, psnr, phase, state, cfg, run=None):
    """Raise FloatingPointError when an epoch ended far below the best ones before, and put `run` back to them.

    `judged` are the PSNR of the pictures that it is judged by, and `psnr` what is said of it. Most of them must have
    fallen: a single picture cannot decide.
    """
    falls = sorted(best - now for best, now in zip(state.best, judged))
    if falls and falls[(len(falls) - 1) // 2] > FALL:
        if run:
            run.rollback()
        raise FloatingPointError(
            f"training has diverged: {phase.name} epoch {state.epoch + 1} ended at {psnr:.1f} dB, after "
            f"{state.best_psnr:.1f} dB before. The run was put back to the end of the epoch before. "
            f"{_advice(phase, state, cfg)}")


def _no_number(what, phase, state, cfg):
    return (f"training has diverged: {what} of {phase.name} epoch {state.epoch + 1} is no longer a number. Nothing of "
            f"this was saved over the last good state. {_advice(phase, state, cfg)}")


def _advice(phase, state, cfg):
    new = provenance.free_name(cfg.name, cfg.runs)
    advice = (f"Lower {provenance.named(phase, 'lr', cfg)} (now {phase.learning_rate:g}) or set clip_gradients (now "
              f"{cfg.clip_gradients}; 0.1 is strong) under a new name: cfg.name = {new!r}")
    if any(row["phase"] != phase.name for row in state.history):
        advice += f", and cfg.fork_of = {cfg.name!r} keeps what was trained before the {phase.name}"
    return advice
