"""A network that learns, as an epoch of training sees it: call it to compute, `descend` to learn."""

import inspect
from contextlib import contextmanager
from functools import wraps

import torch


class Learner:
    """A network that learns: `learner(x)` computes, `learner.descend(loss)` makes one update of its weights.

    `learner(x, y)` gives the network's outputs for both batches; its weights are brought into the machine's number
    format only once for them. They go through it one after the other, or, which is quicker, as one batch, if the
    network has `per_sample = True`. What is named, `learner(x, features=True)`, goes to the network as it is.

    Parameters
    ----------
    network : torch.nn.Module
        On the machine's device.
    optimizer : torch.optim.Optimizer
        Of the network's weights; `learning_rate` sets what its next update takes.
    machine : Machine
        Gives number format, scaling of the loss (fp16) and averaging over processes.
    clip : float, optional
        Largest norm of the gradient.
    """

    def __init__(self, network, optimizer, machine, clip=None):
        # `gives_fp32`, whatever format it computes in: for losses that are written with fp32 in mind. `update` is the
        # batch's number within the epoch; the trainer counts. (What a network has under these names stays its own.)
        vars(self).update(network=network, optimizer=optimizer, machine=machine, clip=clip, gives_fp32=False, update=0,
                          _parallel=machine.data_parallel(network), _frozen=False)

    def __call__(self, *batches, **options):
        # Frozen, it goes without the wrapper of several processes, which counts on gradients of its weights.
        network = self.network if self._frozen else self._parallel
        with self.machine.autocast():
            if (len(batches) > 1 and not options and self._is_per_sample()
                    and len({batch.shape[1:] for batch in batches}) == 1):
                together = network(torch.cat(batches))
                if isinstance(together, torch.Tensor):
                    together = together.float() if self.gives_fp32 else together
                    return together.split([len(batch) for batch in batches])
            outputs = [network(batch, **options) for batch in batches] or [network(**options)]
        if self.gives_fp32:
            outputs = [output.float() if isinstance(output, torch.Tensor) else output for output in outputs]
        return outputs[0] if len(outputs) == 1 else outputs

    def __getattr__(self, name):
        """What the network has, such as `parameters()`: so that code written for a network alone works here, too."""
        if name == "network":  # (of a learner that is only being made)
            raise AttributeError(name)
        value = getattr(self.network, name)
        if not inspect.ismethod(value):
            return value

        @wraps(value)
        def method(*arguments, **options):
            result = value(*arguments, **options)
            return self if result is self.network else result  # of `generator = generator.train()`, say

        return method

    def __setattr__(self, name, value):
        """What the network has is set there: `generator.alpha = 0.5`, say."""
        network = vars(self).get("network")
        if network is not None and not hasattr(type(self), name) and name not in vars(self) and hasattr(network, name):
            setattr(network, name, value)
        else:
            super().__setattr__(name, value)

    def _is_per_sample(self):
        """Whether the network says that it looks at each picture alone (by one of two names, the second an older)."""
        return True in (getattr(self.network, name, False) for name in ("per_sample", "judges_each_alone"))

    @contextmanager
    def frozen(self):
        """A context in which gradients pass through the network and its own weights get none."""
        learning = [weight for weight in self.network.parameters() if weight.requires_grad]  # others stay frozen
        self.network.requires_grad_(False)
        self._frozen = True
        try:
            yield
        finally:
            for weight in learning:
                weight.requires_grad_(True)
            self._frozen = False

    def descend(self, loss):
        """One update of the weights down the gradient of the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        self.machine.scaler.scale(loss).backward()
        self._step()
        self.machine.scaler.update()

    def _step(self):
        if self.clip:
            self.machine.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self._weights(), self.clip)
        self.machine.scaler.step(self.optimizer)

    def _weights(self):
        return [weight for group in self.optimizer.param_groups for weight in group["params"]]

    @property
    def learning_rate(self):
        return self.optimizer.param_groups[0]["lr"]

    @learning_rate.setter
    def learning_rate(self, value):
        for group in self.optimizer.param_groups:
            group["lr"] = float(value)  # (NumPy's could not be saved)


def joint_step(*losses):
    """One update of several learners, each down the gradient of its own loss, from one forward pass.

    Takes pairs (learner, loss).
    """
    for learner, loss in losses:
        learner.optimizer.zero_grad(set_to_none=True)
        learning = [weight for weight in learner._weights() if weight.requires_grad]
        learner.machine.scaler.scale(loss).backward(inputs=learning, retain_graph=loss is not losses[-1][1])
    for learner, _ in losses:
        learner._step()
    losses[0][0].machine.scaler.update()


def load_optimizer(optimizer, state):
    """Give an Adam optimizer the moments of a saved one, whatever machine, number format or layout they come from.

    How it computes (its epsilon, fused or not) stays as it was made. Raises ValueError for moments of other shapes
    than its weights have; PyTorch's fused Adam would read beyond them.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    moments = state["state"]
    if not moments.keys() <= set(range(len(weights))):  # (fewer are right: of weights that never had a gradient)
        raise ValueError(f"moments of {len(moments)} weights, not of {len(weights)}")
    for index, values in moments.items():
        for name in ("exp_avg", "exp_avg_sq"):
            if values[name].shape != weights[index].shape or values[name].dtype != weights[index].dtype:
                raise ValueError(f"{name} of weight {index} is {tuple(values[name].shape)}, {values[name].dtype}")
        if values["step"].numel() != 1:
            raise ValueError(f"step of weight {index} is no number")
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    for weight, values in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):  # in the layout of their weight, which fused Adam takes for granted
            values[name] = torch.empty_like(weight, requires_grad=False).copy_(values[name])
