"""A run from its settings to its last epoch: the parts of this folder put together, and the loop over the epochs.

What is learned in an epoch, and by which losses, is none of its business: see `solver.py`, whose Trainer is this one
with the networks of `models.py` and the phases of SRGAN.
"""

import time
from contextlib import nullcontext
from functools import partial

from datasets import batches, training_patches
from kit.compute.device import Machine
from kit.compute.interrupt import Stopped, interruption
from kit.language import tr
from kit.runs import Run, provenance
from kit.settings.schema import checked, current_names
from kit.training import divergence
from kit.training.checks import check_enlarges, check_same, memory_told
from kit.training.cost import cost_table, seconds_per_update, seconds_to_validate
from kit.training.display import HOURS, Display, long_told
from kit.training.epoch import explained, rest_of_epoch, seed_of, updates
from kit.training.keeping import Keeper
from kit.training.networks import Networks
from kit.training.pace import Pace
from kit.training.phases import Made, check_phases, find_phase, settle_precision, with_plain_numbers
from kit.training.resume import beginning_told, open_saved, restore
from kit.training.state import RunState
from kit.training.validation import digest_of, enlarger, low_resolutions, validate, validation_set
from utils import bicubic


class Trainer:
    """A run: networks, optimizers and history, kept in `runs/<name>/` and resumed from there.

    All randomness follows from the seed and the number of the update, so a run that was stopped or
    killed anywhere and resumed ends with the same weights as one that was not (to the last bit: see `pace.py`).

    Parameters
    ----------
    cfg : EasyDict
        From `settings()`.
    phases : list of Phase
        What the run goes through.
    make_generator, make_discriminator : callable
        cfg → network, as in `models.py`.
    extras : dict of str → Extra
        What an epoch function can ask for beside networks, batches and settings.
    progress : bool
        Show progress bars and messages.

    Raises
    ------
    ValueError, FileNotFoundError
        For settings, phases, lists, pictures, networks and checkpoints that cannot be used.
    """

    def __init__(self, cfg, phases, make_generator, make_discriminator, extras=None, progress=True):
        self._given, self.cfg, self.run = cfg, checked(cfg), Run(cfg.name, cfg.runs)
        self.phases, self.extras = with_plain_numbers(phases), extras or {}
        check_phases(self.phases, self.cfg, self.extras)
        self.machine = Machine(cfg.device, cfg.precision, cfg.channels_last)
        self.progress = progress and self.machine.rank == 0
        self.pace = Pace(self.run, cfg.threads, self.machine)
        settle_precision(self.phases, self.machine, cfg.precision == "auto", self._say)
        self._makers = {"generator": make_generator, "discriminator": make_discriminator}
        saved, forked = open_saved(self.run, self.phases, self.cfg, self.extras, self._makers, self._say, self.machine)
        self.train_set = training_patches(self.cfg, self.machine, self.progress)
        self.valid_set = validation_set(self.cfg)
        self._digests = {"data": self.train_set.digest, "validation": digest_of(self.valid_set, cfg.valid_pictures)}
        steps = cfg.updates_per_epoch or len(batches(self.train_set, cfg.batch_size))
        self._batches = partial(rest_of_epoch, steps, self.machine, self.train_set, self.cfg)
        self.state = RunState(self.phases, steps, self.machine)
        judged = any(phase.asks_for("discriminator") for phase in self.phases)
        with memory_told(self.machine):
            self.networks = Networks(self.cfg, self.machine, make_generator, make_discriminator, judged, self._say)
            enlarge = enlarger(self.generator, self.machine)
            check_enlarges(enlarge, cfg.scale, low_resolutions(self.valid_set, self.cfg))
        self._say(enlarge.note)
        if saved:
            restore(saved, self.run, self._digests, self.state, self.networks)
        elif cfg.start_from:
            self.state.initial_updates = self.networks.start_from(cfg.start_from)
        self.keeper = Keeper(self.run, self.cfg, saved["record"] if saved else [], forked, self.machine.rank == 0)
        self.keeper.check_room(self.generator, sum(phase.epochs for phase in self.phases) - len(self.history))
        self._made = Made(self.extras, self.cfg, self.machine, self.state.waiting())
        self._say(tr("run {folder!r}: {how}, on {device} in {precision}", folder=str(self.run.folder),
                     how=beginning_told(saved, forked, self.state), device=self.machine.device,
                     precision=self.machine.precision))

    # ------------------------------------------------------------------------------------ from outside

    @property
    def generator(self):
        return self.networks.generator

    @property
    def discriminator(self):
        """None until a phase asks for it."""
        return self.networks.discriminator

    @property
    def result(self):
        """The generator that is validated and kept: with `cfg.ema_decay` the average of the weights."""
        return self.networks.result

    @property
    def history(self):
        """The epochs that are done, a dictionary each."""
        return self.state.history

    def train(self, name=None, on_epoch=None):
        """Train the phase of this name until its epochs are done, or all phases; `on_epoch(history)` after each.

        Returns the history, a list of dictionaries. Raises ValueError when an earlier phase is not done,
        FloatingPointError when a loss is no longer a number, and Stopped, a KeyboardInterrupt, after saving, when the
        user stops it.
        """
        check_same(self.cfg, current_names(self._given))
        self.state.check_whole()
        for phase in self.phases if name is None else [find_phase(self.phases, name)]:
            if self._enter(phase):
                self._train(phase, on_epoch)
            elif on_epoch and self.history:
                on_epoch(self.history)  # the curves so far
        return self.history

    def cost(self, updates=3):
        """A table of the minutes that what is not done will take here, found by updates of copies of the networks."""
        def seconds(phase):
            count = max(updates, phase.settings(self.cfg).penalty_every)  # the slower ones as often as they come
            arguments = phase.arguments(self.cfg, {**self._made.of(phase), **self.networks.copies(phase)})
            with self.machine.tuned():
                return seconds_per_update(phase, arguments, self._batches(0, count + 1), count)

        make = partial(enlarger, self.generator, self.machine)
        validating = seconds_to_validate(make, self.valid_set, self.cfg.valid_pictures)
        table, minutes = cost_table(self.state, seconds, validating, self.pace.candidates)
        if minutes > 60 * HOURS:
            self._say(long_told(minutes / 60))
        return table

    def pictures(self, index=0):
        """What became of a validation picture: bicubic, the first sample that was kept, and the last of each phase.

        A dictionary title → picture (uint8), the original last, for `kit.plots.plot_comparison`.
        """
        pair = self.valid_set[index]
        return {"bicubic": bicubic(pair.lr, self.cfg.scale), **self.run.samples_of(pair.name, self.history),
                "original": pair.hr}

    # ------------------------------------------------------------------------------------------- phases

    def _enter(self, phase):
        """Go over to a phase, if need be and allowed. Whether there is something to train in it."""
        state = self.state
        if not phase.epochs:
            return False
        if phase.name != state.phase:
            if state.has_passed(phase):
                self._say(tr("{phase} is over: {present} has begun", phase=phase.name, present=state.phase))
                return False
            if waiting := state.unfinished_before(phase):
                raise ValueError(f"the {waiting.name} of run {self.cfg.name!r} is not finished ({state.position}): "
                                 f"call train({waiting.name!r}) first, or lower "
                                 f"{provenance.named(waiting, 'epochs', self.cfg)}")
            self.keeper.leave_phase(state.phase)
            state.begin_phase(phase)
            self.networks.begin_phase()
        if state.epoch >= phase.epochs:
            self._say(tr("{position}; for more, raise {setting}", position=state.position,
                         setting=provenance.named(phase, "epochs", self.cfg)))
            return False
        if phase.asks_for("discriminator") and self.discriminator is None:
            if state.epoch or state.step:
                raise ValueError(f"{self.run.checkpoint('last')}: has no discriminator, though {phase.name} has begun")
            self.networks.add_discriminator()
        return True

    def _train(self, phase, on_epoch):
        """Train a phase, with the run's folder locked, and leave it in order however that ends."""
        if on_epoch and self.history:
            on_epoch(self.history)
        arguments = phase.arguments(self.cfg, {**self._made.of(phase), **self.networks.learners(phase)})
        first = self.machine.rank == 0
        with self.run.locked() if first else nullcontext(), interruption(self.progress) as self._interrupted, \
                Display(self.run, phase, self.state, self.progress, first) as display, self.pace.phase():
            self.keeper.begin(phase, self.state, self.extras, self._makers)
            self._looked = self._saved = time.monotonic()
            try:
                self.fit(phase, arguments, display, on_epoch)
            except FloatingPointError as error:
                display.write("diverged", message=str(error))
                raise
            except (Stopped, RuntimeError, MemoryError, ValueError) as error:
                display.write(self.state.outcome(phase), message=str(error))
                if told := explained(error, phase, self.cfg, self.machine):
                    raise told from error
                raise
            display.write(self.state.outcome(phase))

    def fit(self, phase, arguments, display, on_epoch=None):
        """Train the epochs of a phase that are not done yet: update by update, then validate, keep and save."""
        state, networks = self.state, self.networks
        while state.epoch < phase.epochs:
            state.start_clock()
            with self.machine.tuned():
                for losses in self._updates(phase, arguments):  # by the phase's function, such as solver.warmup_epoch
                    state.count(losses, phase)
                    networks.follow(state.steps_in_phase)  # the moving average of the generator's weights
                    state.torn = False
                    display.update()
                    self._keep_watch(phase, display)  # show losses, save, or stop, when it is time to
            if state.step > state.saved_step:
                self._save(phase)  # whatever happens to the validation, the epoch was trained
            scores, samples = validate(networks.result, self.valid_set, self.cfg, self.machine)
            self._finish_epoch(phase, scores, samples)
            display.epoch_done()
            if on_epoch:
                with display.aside():
                    on_epoch(self.history)
            if self._interrupted.is_set():
                raise self._stopped()

    def _updates(self, phase, arguments):
        """Make the updates of the present epoch that are not made yet; yields the losses of each."""
        state = self.state
        rest = self._batches(state.steps, state.steps_per_epoch - state.step)
        rate = phase.settings(self.cfg).discriminator_rate
        seed = seed_of(self.cfg.seed, len(self.history), self.machine.rank, 1)
        return self.pace.paced(updates(phase, arguments, rest, state, seed, rate, self._say), state)

    def _keep_watch(self, phase, display):
        """After an update: show the losses from time to time; save when it is time to, or the user stops it."""
        now = time.monotonic()
        if now - self._looked > 0.5:  # reading the sums makes a GPU wait, so not after every update
            self._looked = now
            display.losses(self._mean_losses(phase))
        stop, save = self._interrupted.is_set(), now - self._saved > 60 * self.cfg.save_minutes
        if self.machine.world > 1:  # what any process wants, all do, and after the same update; asking costs time
            asks = self.state.step % 20 == 0
            stop, save = self.machine.any(stop or self.machine.is_orphan, save) if asks else (False, False)
        if stop or save:
            self._save(phase)
        if stop:
            raise self._stopped()

    def _stopped(self):
        return Stopped(tr("stopped and saved: {position}; run the cell or command again to go on",
                          position=self.state.position))

    def _mean_losses(self, phase, shared=False):
        means = self.state.mean_losses(shared)
        divergence.check_losses(means, phase, self.state, self.cfg)
        return means

    def _finish_epoch(self, phase, scores, samples):
        """Put an epoch that was validated into the history, and keep what the settings say."""
        state, judged = self.state, scores.pop("judged")
        row = {"phase": phase.name, "epoch": state.epoch + 1, "updates": state.initial_updates + state.steps,
               "learning_rate": state.last_rate(phase), **self._mean_losses(phase, shared=True), **scores,
               "seconds": round(state.elapsed(), 3)}
        divergence.check_score(judged, scores["psnr"], phase, state, self.cfg,
                               self.run if self.machine.rank == 0 else None)
        state.end_epoch(row, judged)
        self.keeper.keep(phase, self.history, self.result, samples)
        self._save(phase)  # last: if this is not reached, the epoch is done again and all of the above rewritten
        self.keeper.write_history(self.history)

    def _save(self, phase):
        """Save everything that resuming needs; never what is no number."""
        self._saved, saved = time.monotonic(), self.state.to_save()
        divergence.check_losses(saved["sums"] or {}, phase, self.state, self.cfg)
        divergence.check_weights(self.networks, phase, self.state, self.cfg)
        self.state.saved_step = self.state.step
        self.keeper.save({**saved, **self.networks.to_save(), **self._digests})

    def _say(self, message):
        if self.progress and message:
            print(message, flush=True)
