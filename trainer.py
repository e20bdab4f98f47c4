"""How a run goes through its phases: counting, learning rates, validation, saving, stopping and resuming.

What is learned in an epoch, and by which losses, is none of its business: see `solver.py`, whose Trainer is this one
with the phases of SRGAN.
"""

import inspect
import math
import time
from collections import namedtuple
from contextlib import contextmanager, nullcontext
from copy import copy, deepcopy
from functools import partial
from itertools import chain

import torch
from easydict import EasyDict
from torch.optim.swa_utils import get_ema_multi_avg_fn

import checks
import recipes
import records
from datasets import TestDataset, batches, training_patches
from evaluation import evaluate, mean_scores
from machine import Learner, Machine, Stopped, interruption, is_out_of_memory, load_optimizer, quicken
from models import make_discriminator, make_generator
from runs import Run, load_checkpoint
from screen import HOURS, Screen
from utils import Enlarger, Table, bicubic, did_you_mean, to_signed, to_unit

# A part of a run: its name, its kind of epoch (see solver.py), how many of these, the learning rate and its course.
Phase = namedtuple("Phase", "name epoch epochs learning_rate schedule", defaults=["constant"])

# What an epoch function can ask for beside networks, batches and settings: `make(cfg, machine)`, and the names of
# the settings that it hangs on.
Extra = namedtuple("Extra", "make settings")


class Trainer:
    """A run: networks, optimizers and history, kept in `runs/<name>/` (see `runs.py`) and resumed from there.

    All randomness follows from the seed and the number of the update, so a run that was stopped or
    killed anywhere and resumed ends with the same weights as one that was not.

    Parameters
    ----------
    cfg : EasyDict
        From `settings()`.
    phases : list of Phase
        What the run goes through.
    extras : dict of str → Extra
        What an epoch function can ask for beside networks, batches and settings.
    progress : bool
        Show progress bars and messages.

    Raises
    ------
    ValueError, FileNotFoundError
        For settings, phases, lists, pictures, networks and checkpoints that cannot be used.
    """

    def __init__(self, cfg, phases, extras=None, progress=True):
        recipes.check_settings(cfg)
        self._given, self.cfg, self.run = cfg, EasyDict(cfg), Run(cfg.name, cfg.runs)
        self.phases, self.extras = list(phases), extras or {}
        checks.check_phases(self.phases, self.cfg, self.extras)
        self.machine = Machine(cfg.device, cfg.precision, cfg.channels_last)
        self.progress = progress and self.machine.rank == 0
        self.history, self.phase, self.epoch, self.step, self.step_saved = [], self.phases[0].name, 0, 0, 0
        self.losses, self.sums = [], None  # names of the losses, and the sums of this epoch so far
        self.seconds = 0  # spent on this epoch before it was last saved
        self.record, self.begun_after, self._left, self._forked = [], 0, None, None
        with self._resuming():
            state = self.machine.broadcast(self._old_state)  # of several machines perhaps only the first has the folder
        self.train_set = training_patches(cfg, self.progress)  # of several processes one makes the pack
        if self.machine.device.type != "cpu" and (
                self.machine.has_room_for(self.train_set.bytes) if cfg.data_on_gpu == "auto" else cfg.data_on_gpu):
            self.train_set.keep_on(self.machine.device)
        self.valid_set = TestDataset(cfg.valid_list, cfg.scale, keep=cfg.valid_pictures)
        checks.check_valid_set(self.valid_set, cfg.valid_pictures)
        self.steps_per_epoch = cfg.updates_per_epoch or len(batches(self.train_set, cfg.batch_size))

        torch.manual_seed(cfg.seed)
        self.generator = self._placed(make_generator(cfg))
        checks.check_generator(self.generator, cfg.scale)
        judged = any(_asks_for("discriminator", phase) for phase in self.phases)
        self.machine.broadcast(lambda: checks.check_batches(  # one process downloads what a network needs
            cfg, self.generator, judged, cfg.batch_size // self.machine.world, self.machine.memory))
        self.g_optimizer = self._adam(self.generator)
        self.discriminator = self.d_optimizer = None  # until a phase asks for it
        if state:
            with self._resuming(ValueError, RuntimeError):
                self._restore(state)
        elif cfg.start_from:
            self._start_from(cfg.start_from)
        self._begin_average(state)
        checks.check_room(self.run.folder, self._bytes_to_write())
        ahead = [phase for phase in self.phases[self._index(self.phase):] if phase.epochs]
        self._made = {name: extra.make(self.cfg, self.machine) for name, extra in self.extras.items()
                      if any(_asks_for(name, phase) for phase in ahead if not self._is_over(phase))}
        how = f"resumed, {self._position()}" if state else "new"
        if self._forked:
            how = f"new, with the {' and '.join(self._forked[1])} of {self.cfg.fork_of!r}: {self._position()}"
        self._say(f"run {str(self.run.folder)!r}: {how}, on {self.machine.device} in {self.machine.precision}")

    # ------------------------------------------------------------------------------------ from outside

    def train(self, name=None, on_epoch=None):
        """Train the phase of this name until its epochs are done, or all phases; `on_epoch(history)` after each.

        Returns the history, a list of dictionaries. Raises ValueError when an earlier phase is not done,
        FloatingPointError when a loss is no longer a number, and Stopped, a KeyboardInterrupt, after saving, when the
        user stops it.
        """
        for setting, value in self._given.items():
            if self.cfg.get(setting) != value:
                raise ValueError(f"{setting} was {self.cfg.get(setting)!r} when the trainer was made, and cfg says "
                                 f"{value!r} now; make it again: trainer = solver.Trainer(cfg)")
        for phase in self.phases if name is None else [self._phase(name)]:
            if self._enter(phase):
                self._train(phase, on_epoch)
            elif on_epoch and self.history:
                on_epoch(self.history)  # the curves so far
        return self.history

    def cost(self, updates=3):
        """What the phases that are not done will take on this machine, in minutes, as a table.

        Found by a few updates of each with copies of the networks; the run does not notice.
        """
        rows, total = [], 0
        began = time.perf_counter()
        evaluate(Enlarger(self.generator), self.valid_set, 1, progress=False)
        validating = (time.perf_counter() - began) * min(len(self.valid_set), self.cfg.valid_pictures)
        for phase in self.phases[self._index(self.phase):]:
            epochs = phase.epochs - (self.epoch if phase.name == self.phase else 0)
            if epochs <= 0:
                continue
            one = self._seconds_per_update(phase, updates)
            minutes = epochs * (self.steps_per_epoch * one + validating) / 60
            total += minutes
            rows.append([phase.name, str(epochs), f"{epochs * self.steps_per_epoch:,}", f"{1000 * one:,.0f}",
                         f"{minutes:,.1f}"])
        rows.append(["all", "", "", "", f"{total:,.1f}"])
        if total > 60 * HOURS:
            self._say(f"this will take about {total / 60:.0f} hours on this machine; it can be stopped and resumed at "
                      f"any time")
        return Table(rows, ["phase", "epochs to do", "updates", "ms per update", "minutes"])

    def _seconds_per_update(self, phase, updates):
        machine, arguments, ticks = copy(self.machine), {}, []
        machine.scaler = deepcopy(machine.scaler)
        for name in self._asked(phase):
            if name in ("generator", "discriminator"):
                with torch.random.fork_rng(devices=[]):
                    network = deepcopy(getattr(self, name)) or self._new_discriminator()
                arguments[name] = Learner(network.train(), self._adam(network), machine, self.cfg.clip_gradients)
            else:
                arguments[name] = self._made.get(name, self.cfg.get(name))
        updates = max(updates, self.cfg.penalty_every)  # the slower ones as often as they come
        for losses in _yielded(phase, arguments, self._batches(0, updates + 1)):
            sum(float(torch.as_tensor(loss).detach()) for loss in losses.values())  # (waits for a GPU)
            ticks.append(time.perf_counter())
            for learner in arguments.values():
                if isinstance(learner, Learner):
                    learner.update += 1
        return (ticks[-1] - ticks[0]) / updates  # without the first, which takes longer

    @property
    def result(self):
        """The generator that is validated and kept: with `cfg.ema_decay` the average of the weights."""
        return self.average or self.generator

    def pictures(self, index=0):
        """What became of a validation picture: bicubic, the first sample that was kept, and the last of each phase.

        A dictionary title → picture (uint8), the original last, for `plots.plot_comparison`.
        """
        pair = self.valid_set[index]
        shown = {"bicubic": bicubic(pair.lr, self.cfg.scale)}
        kept = [(phase, self.run.sampled_epochs(phase, pair.name))
                for phase in dict.fromkeys(row["phase"] for row in self.history)]
        for i, (phase, epochs) in enumerate(kept):
            for epoch in dict.fromkeys((epochs[:1] if i == 0 else []) + epochs[-1:]):
                shown[f"{phase}, epoch {epoch}"] = self.run.sample(phase, epoch, pair.name)
        return {**shown, "original": pair.hr}

    # ------------------------------------------------------------------------------------------- phases

    def _phase(self, name):
        for phase in self.phases:
            if phase.name == name:
                return phase
        names = [phase.name for phase in self.phases]
        raise ValueError(f"there is no phase {name!r} here, but {', '.join(names)}{did_you_mean(name, names)}; make "
                         f"the trainer with phases=[*solver.phases(cfg), …]")

    def _enter(self, phase):
        """Go over to a phase, if need be and allowed. Whether there is something to train in it."""
        if phase.name != self.phase:
            begun, names = {row["phase"] for row in self.history}, [phase.name for phase in self.phases]
            before = names.index(phase.name)
            if phase.name in begun or self.phase in names[before:]:
                over = "is over" if phase.name in begun else "never was"
                self._say(f"the {phase.name} of this run {over}; its {self.phase} has begun")
                return False
            if not phase.epochs:
                return False
            current = self._phase(self.phase)
            waiting = [current] * (self.step > 0 or self.epoch < current.epochs)
            waiting += [p for p in self.phases[names.index(self.phase) + 1 : before] if p.epochs]
            if waiting:
                call = f"train({waiting[0].name!r})"
                raise ValueError(f"the {waiting[0].name} of run {self.cfg.name!r} is not finished "
                                 f"({self._position()}): call {call} first, or lower "
                                 f"{records.named(waiting[0], 'epochs', self.cfg)}")
            self._left, self.phase, self.epoch = current.name, phase.name, 0
            self.generator.load_state_dict(self.result.state_dict())
            self._begin_average()
            self.g_optimizer = self._adam(self.generator)  # a new task: old momentum would mislead
            if self.discriminator:
                self.d_optimizer = self._adam(self.discriminator)
        if self.epoch >= phase.epochs:
            self._say(f"{phase.name}: {self.epoch} of {phase.epochs} epochs are done; "
                      f"for more, raise {records.named(phase, 'epochs', self.cfg)}")
            return False
        if _asks_for("discriminator", phase) and not self.discriminator:
            if self.epoch or self.step:
                raise ValueError(f"{self.run.checkpoint('last')}: has no discriminator, though {phase.name} has begun")
            self._make_discriminator()
        return True

    def _train(self, phase, on_epoch):
        if on_epoch and self.history:
            on_epoch(self.history)
        make = {"generator": partial(self._learner, "generator", self.cfg.clip_gradients),
                "discriminator": partial(self._learner, "discriminator")}
        arguments = {name: make[name]() if name in make else self._made.get(name, self.cfg.get(name))
                     for name in self._asked(phase)}
        first = self.machine.rank == 0
        with self.run.locked() if first else nullcontext(), interruption(self.progress) as self.interruption, \
                Screen(self.run, phase, self.steps_per_epoch, self.epoch, self.step, self.progress, first) as screen:
            self.record = records.extended(self.record, records.stretch(phase, self.epoch + 1, self.cfg, self.extras))
            if first:
                self._begin_writing()
            try:
                while self.epoch < phase.epochs:
                    finished = self._run_epoch(phase, arguments, screen)
                    if finished and on_epoch:
                        on_epoch(self.history)
                    if not finished or self.interruption.is_set():
                        raise Stopped(f"stopped and saved: {self._position()}; run the cell or command again to go on")
            except FloatingPointError as error:
                screen.write("diverged", message=str(error))
                raise
            except (Stopped, RuntimeError, MemoryError, ValueError) as error:
                screen.write(self._outcome(phase), message=str(error))
                if not isinstance(error, (RuntimeError, MemoryError)) or not is_out_of_memory(error):
                    raise
                raise ValueError(
                    f"{phase.name}: memory ran out on {self.machine.device}; choose a new name with a smaller "
                    f"batch_size (now {self.cfg.batch_size}) or crop (now {self.cfg.crop}), or end other programs "
                    f"({str(error).splitlines()[0]})") from error
            screen.write(self._outcome(phase))

    def _outcome(self, phase):
        """How the run stands after this phase has ended or was stopped."""
        later = any(later.epochs for later in self.phases[self._index(phase.name) + 1 :])
        return "finished" if self.epoch >= phase.epochs and not later else "stopped"

    def _asked(self, phase):
        """The names of what an epoch function asks for, but for its batches."""
        return [name for name in inspect.signature(phase.epoch).parameters
                if name in ("generator", "discriminator", *self._made) or name in self.cfg]

    def _begin_writing(self):
        """Bring the folder of the run up to date: of a fork, of a phase left, and when it was killed just before."""
        if self._forked:
            self.run.take_over(*self._forked)
            self._forked = None
        if self._left:
            self.run.keep_state(self._left)
            self._left = None
        self.run.write_settings(records.to_be_read(self.record, self.history))
        self.run.write_history(self.history)

    def _run_epoch(self, phase, arguments, screen):
        """Train to the end of an epoch and validate. False when the user stopped it before."""
        self.began = time.monotonic() - self.seconds
        learners = {name: argument for name, argument in arguments.items() if isinstance(argument, Learner)}
        for learner in learners.values():
            learner.network.train()
        self._before_update(learners, phase)
        last_look = last_save = time.monotonic()
        with self.machine.tuned():
            # Counted through all phases, so that the second does not see the patches of the first again.
            first = len(self.history) * self.steps_per_epoch + self.step
            rest = self._batches(first, self.steps_per_epoch - self.step)
            before = _fingerprint(learners.values())
            for losses in _yielded(phase, arguments, rest):
                self._count(losses, phase)
                screen.update(self.epoch, self.step)
                now = time.monotonic()
                if now - last_look > 0.5:  # reading the sums makes a GPU wait, so not after every update
                    last_look = now
                    screen.losses(self._means(phase, self.sums))
                stop, save = self._agree(self.interruption.is_set(), now - last_save > 60 * self.cfg.save_minutes)
                if stop or save:
                    self._save(phase)
                    last_save = now
                if stop:
                    return False
                self._before_update(learners, phase)
            if self.step != self.steps_per_epoch:
                raise ValueError(f"phase {phase.name!r}: its epoch function yielded {self.step} times for "
                                 f"{self.steps_per_epoch} batches; it must yield its losses once for each")
            if before == _fingerprint(learners.values()):
                self._say(f"no weight has changed in this epoch of phase {phase.name!r}: does its epoch function call "
                          f"generator.descend(loss)?")
            if self.steps_per_epoch > self.step_saved:
                self._save(phase)  # whatever happens to the validation, the epoch was trained
        row, samples = self._validated(phase)
        best = max((old["psnr"] for old in self.history), default=-math.inf)
        if row["psnr"] < best - 10:
            if self.machine.rank == 0:
                self.run.go_back()
            raise FloatingPointError(
                f"training has diverged: {phase.name} epoch {self.epoch + 1} ended at {row['psnr']:.1f} dB, after "
                f"{best:.1f} dB before. The run was put back to the end of the epoch before. {self._advice(phase)}")
        self.history.append(row)
        self.epoch, self.step, self.step_saved, self.sums = self.epoch + 1, 0, 0, None
        if self.machine.rank == 0:
            self._keep(phase, row, samples)
        self._save(phase)  # last: if this is not reached, the epoch is done again and all of the above rewritten
        if self.machine.rank == 0:
            self.run.write_history(self.history)
            self.run.write_settings(records.to_be_read(self.record, self.history))
        screen.epoch_done(row)
        return True

    def _batches(self, first, count):
        """`count` batches from number `first` on as tensors on the device: low in [0, 1], high in [-1, 1]."""
        for low, high in batches(self.train_set, self.cfg.batch_size, first, count, self.cfg.workers, self.machine.rank,
                                 self.machine.world, pinned=self.machine.device.type == "cuda"):
            yield to_unit(self.machine.move(low)), to_signed(self.machine.move(high))

    def _count(self, losses, phase):
        """Count an update and add its losses up, on the device."""
        try:
            values = torch.stack([torch.as_tensor(value, dtype=torch.float32, device=self.machine.device).detach()
                                  for value in losses.values()])
            if self.sums is None:
                self.losses, self.sums = list(losses), torch.zeros(len(losses), dtype=torch.float64,
                                                                   device=self.machine.float64_device)
            self.sums += values.to(self.sums.device)
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"phase {phase.name!r}: its epoch function must yield a dictionary of losses, the same "
                             f"single numbers each time, not {losses!r} ({error})") from error
        self.step += 1
        if self.average:
            self._follow()

    def _validated(self, phase):
        """The row of history for this epoch, and the first pairs with what became of them.

        The processes share the pictures; in all of them batch norm has the averages of the first, which are kept.
        """
        means, rank, world = self._means(phase, self._shared_sums()), self.machine.rank, self.machine.world
        self.machine.equalise_buffers(self.result)
        enlarge_one, mine = Enlarger(self.result), []

        def enlarge(low):
            picture = enlarge_one(low)
            if rank + world * len(mine) < self.cfg.sample_pictures:
                mine.append(picture)
            return picture

        rows = evaluate(enlarge, self.valid_set, self.cfg.valid_pictures, progress=False, part=rank, parts=world)
        scores, pictures = {}, {}
        for part, (part_rows, part_pictures) in enumerate(self.machine.gather((rows, mine))):
            scores.update(zip(range(part, self.cfg.valid_pictures, world), part_rows))
            pictures.update(zip(range(part, self.cfg.valid_pictures, world), part_pictures))
        found = mean_scores([scores[index] for index in sorted(scores)])
        row = {"phase": phase.name, "epoch": self.epoch + 1,
               "updates": self.begun_after + len(self.history) * self.steps_per_epoch + self.step,
               "learning_rate": self._learning_rate(phase), **means,
               **{name: value for name, value in found._asdict().items() if value is not None},
               "seconds": round(time.monotonic() - self.began, 3)}
        return row, [(self.valid_set[index], pictures[index]) for index in sorted(pictures)]

    def _keep(self, phase, row, samples):
        """Keep the pictures and the generator of the epoch that has just ended, as far as the settings say so."""
        last = self.epoch == phase.epochs
        if self.epoch % self.cfg.sample_every == 0 or last:
            self.run.keep_samples(phase.name, self.epoch, samples)
        sign = -1 if self.cfg.best_by == "niqe" else 1  # the lower, the better
        values = [sign * old.get(self.cfg.best_by, math.nan) for old in self.history if old["phase"] == phase.name]
        best = values[-1] == max(values)
        numbered = self.epoch % self.cfg.checkpoint_every == 0 or last
        notes = {name: row[name] for name in ("psnr", "ssim", "niqe", "updates") if name in row}
        self.run.keep_generator(phase.name, self.epoch, self.result.state_dict(),
                                recipes.section(self.cfg, "generator"), notes, numbered, best,
                                self.cfg.keep_checkpoints)

    def _before_update(self, learners, phase):
        """Tell the learners the learning rate and the number, within the epoch, of the update that comes next."""
        for name, learner in learners.items():
            factor = self.cfg.discriminator_rate if name == "discriminator" else 1
            learner.learning_rate, learner.update = factor * self._learning_rate(phase), self.step

    def _learning_rate(self, phase):
        """The learning rate of the next update."""
        updates = max(phase.epochs * self.steps_per_epoch - 1, 1)
        done = min(self.epoch * self.steps_per_epoch + self.step, updates)
        return scheduled(phase.learning_rate, phase.schedule, done / updates)

    def _shared_sums(self):
        return self.machine.all_reduce(self.sums) / self.machine.world

    def _means(self, phase, sums):
        """Mean losses of the epoch so far. Raises FloatingPointError when one is no number."""
        means = dict(zip(self.losses, (sums / max(self.step, 1)).tolist()))
        if not all(map(math.isfinite, means.values())):
            raise FloatingPointError(self._diverged(phase, "a loss"))
        return means

    def _diverged(self, phase, what):
        return (f"training has diverged: {what} of {phase.name} epoch {self.epoch + 1} is no longer a number. "
                f"Nothing of this was saved over the last good state. {self._advice(phase)}")

    def _advice(self, phase):
        """What to do when a phase has diverged."""
        new = records.free_name(self.cfg.name, self.cfg.runs)
        kept = any(row["phase"] != phase.name for row in self.history)
        return (f"Lower {records.named(phase, 'lr', self.cfg)} (now {phase.learning_rate:g}) or set clip_gradients "
                f"(now {self.cfg.clip_gradients}; 0.1 is strong) under a new name: cfg.name = {new!r}"
                + f", and cfg.fork_of = {self.cfg.name!r} keeps what was trained before the {phase.name}" * kept)

    def _agree(self, stop, save):
        """Whether to stop and to save: what any process wants, all do, and after the same update."""
        if self.machine.world > 1:
            if self.step % 20:
                return False, False  # asking costs time
            stop = stop or self.machine.is_orphan
            stop, save = self.machine.all_reduce(torch.tensor([stop, save], dtype=torch.float32,
                                                              device=self.machine.device)).tolist()
        return bool(stop), bool(save)

    def _begin_average(self, state=None):
        self.average = deepcopy(self.generator).requires_grad_(False) if self.cfg.ema_decay else None
        if self.average and state and "average" in state:
            self.average.load_state_dict(state["average"])
        if self.average:  # their layers, found once, for the search takes longer than the averaging
            self._layers = [list(network.modules()) for network in (self.average, self.generator)]

    def _follow(self):
        """Draw the average towards the generator after an update."""
        done = self.epoch * self.steps_per_epoch + self.step
        decay = min(self.cfg.ema_decay, (1 + done) / (10 + done))  # at first quickly, to forget the random weights
        get_ema_multi_avg_fn(decay)(*map(_averaged, self._layers), done)

    # ----------------------------------------------------------------------------------- saved, resumed

    def _save(self, phase):
        sums = None
        if self.sums is not None:
            shared = self._shared_sums()
            self._means(phase, shared)  # never save what is no number
            sums = dict(zip(self.losses, shared.tolist()))
        self.seconds = time.monotonic() - self.began if self.step else 0
        for network in filter(None, (self.generator, self.discriminator)):
            if not checks.is_finite(network):
                raise FloatingPointError(self._diverged(phase, f"a weight of {type(network).__name__}"))
        self.step_saved = self.step
        if self.machine.rank > 0:
            return
        state = {"phase": self.phase, "epoch": self.epoch, "step": self.step, "data": self.train_set.digest,
                 "record": self.record, "begun_after": self.begun_after,
                 "sums": sums, "seconds": self.seconds, "history": self.history,
                 "settings": dict(self.cfg), "generator": self.generator.state_dict(),
                 "generator_settings": recipes.section(self.cfg, "generator"),
                 "g_optimizer": self.g_optimizer.state_dict(), "scaler": self.machine.scaler.state_dict()}
        if self.average:
            state["average"] = self.average.state_dict()
        if self.discriminator:
            state |= {"discriminator": self.discriminator.state_dict(), "d_optimizer": self.d_optimizer.state_dict()}
        self.run.save_state(state)

    def _old_state(self):
        """The saved state of this run, or of the run that it forks, or None for a new one.

        Raises ValueError for settings that do not go with it.
        """
        state = self.run.load_state()
        if state:
            records.check_unchanged(state, self.phases, self.cfg, self.extras)
            old = state["settings"]
            for name, value in self.cfg.items():
                if name in old and old[name] != value:
                    self._say(f"{name} was {old[name]!r} and is now {value!r}")
            self._explain_extension(state)
        elif self.cfg.fork_of:
            other, kept, state = records.forked(self.cfg, self.phases, self.extras)
            if isinstance(state, str):
                self._say(f"nothing of run {self.cfg.fork_of!r} is valid with these settings, so all is trained anew: "
                          f"{state}")
                return None
            self._forked = other, kept
        return state

    @contextmanager
    def _resuming(self, *also):
        """A context in which errors say that the saved state does not fit."""
        try:
            yield
        except (KeyError, AttributeError, TypeError, *also) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{self.run.checkpoint('last')}: cannot be resumed from ({reason}); put back the "
                             f"pictures, settings and models.py that the run was begun with, or choose another name"
                             ) from error

    def _explain_extension(self, state):
        """Say what it means that a phase with a schedule becomes longer than was planned."""
        planned = {stretch["phase"]: stretch["planned_epochs"] for stretch in state.get("record", [])}
        for phase in self.phases:
            old = planned.get(phase.name, phase.epochs)
            if phase.name == state["phase"] and phase.epochs not in (0, old) and phase.schedule != "constant":
                was, now = (scheduled(phase.learning_rate, phase.schedule, min(state["epoch"] / epochs, 1))
                            for epochs in (old, phase.epochs))
                self._say(f"its schedule, {phase.schedule}, is stretched from {old} to {phase.epochs} epochs: the "
                          f"learning rate, {was:.2g} so far, goes on from {now:.2g}; a run of {phase.epochs} epochs "
                          f"from the beginning would have had another course")

    def _restore(self, state):
        if state.get("data", self.train_set.digest) != self.train_set.digest:
            raise ValueError(f"the training pictures have changed since the run was begun: {state['data']} then, "
                             f"{self.train_set.digest} now (number and CRC)")
        self.phase, self.epoch, self.step, self.history = (state[k] for k in ("phase", "epoch", "step", "history"))
        self.step_saved = self.step
        self.record, self.begun_after = state.get("record", []), state.get("begun_after", 0)
        self.generator.load_state_dict(state["generator"])
        load_optimizer(self.g_optimizer, state["g_optimizer"])
        if state["scaler"] and self.machine.scaler.is_enabled():  # fp16, then and now
            self.machine.scaler.load_state_dict(state["scaler"])
        self.seconds = state.get("seconds", 0)
        if state["sums"] is not None:
            sums = state["sums"]
            if isinstance(sums, list):  # of a run that was begun before losses had their names beside them
                sums = dict(zip(["content_loss", "adversarial_loss", "discriminator_loss", "d_real", "d_fake"], sums))
            self.losses = list(sums)
            self.sums = torch.tensor(list(sums.values()), dtype=torch.float64, device=self.machine.float64_device)
        if "discriminator" in state:
            self._make_discriminator()
            self.discriminator.load_state_dict(state["discriminator"])
            load_optimizer(self.d_optimizer, state["d_optimizer"])

    def _start_from(self, path):
        content, mine = load_checkpoint(path), recipes.section(self.cfg, "generator")
        other = recipes.generator_settings(content["generator_settings"])
        differences = [f"{name} = {other[name]!r}, not {mine[name]!r}" for name in mine if other[name] != mine[name]]
        if differences:
            raise ValueError(f"start_from: the generator in {path} was built with {', '.join(differences)}; make them "
                             f"equal")
        self.generator.load_state_dict(content["generator"])
        self.begun_after = content.get("updates", 0)

    # ------------------------------------------------------------------------------------------- helpers

    def _learner(self, name, clip=None):
        network, optimizer = getattr(self, name), getattr(self, f"{name[0]}_optimizer")
        if self.cfg.compile and not (name == "discriminator" and self.cfg.gradient_penalty):
            torch._dynamo.config.suppress_errors = True  # fall back to running a part as it is
            network.compile()
        return Learner(network, optimizer, self.machine, clip)

    def _new_discriminator(self):
        return self._placed(make_discriminator(self.cfg), quick=not self.cfg.gradient_penalty)

    def _placed(self, network, quick=True):
        """A network on the machine; neither `quick` layers nor compiled ones can be differentiated twice."""
        if self.cfg.sync_batch_norm and self.machine.world > 1 and self.machine.device.type == "cuda":
            network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return self.machine.move(quicken(network) if quick else network)

    def _adam(self, network):
        learning = [weight for weight in network.parameters() if weight.requires_grad]  # a part may be frozen for good
        return torch.optim.Adam(learning, betas=(0.9, 0.999), eps=self.cfg.adam_eps,
                                fused=(self.cfg.fused_adam and self.machine.device.type != "mps") or None)

    def _make_discriminator(self):
        torch.manual_seed(self.cfg.seed + 1)
        self.discriminator = self._new_discriminator()
        self.d_optimizer = self._adam(self.discriminator)

    def _index(self, name):
        return next((i for i, phase in enumerate(self.phases) if phase.name == name), len(self.phases))

    def _is_over(self, phase):
        return phase.name == self.phase and self.epoch >= phase.epochs

    def _bytes_to_write(self):
        """Roughly what the rest of the run will add to its folder."""
        generator = 4 * sum(weight.numel() for weight in self.generator.parameters())
        epochs = sum(phase.epochs for phase in self.phases) - len(self.history)
        numbered = min(epochs // self.cfg.checkpoint_every, self.cfg.keep_checkpoints or epochs)
        return (numbered + 12) * generator  # a state has weights, moments and perhaps an average; two are kept

    def _position(self):
        total = next((phase.epochs for phase in self.phases if phase.name == self.phase), self.epoch)
        within = f" and {self.step} of {self.steps_per_epoch} updates" if self.step else ""
        return f"{self.phase} at {self.epoch} of {total} epochs{within}"

    def _say(self, message):
        if self.progress:
            print(message, flush=True)


def _asks_for(name, phase):
    return phase.epochs > 0 and name in inspect.signature(phase.epoch).parameters


def scheduled(peak, schedule, progress):
    """The learning rate at `progress` (0…1) of a phase.

    "constant"; "step": a tenth in the second half (the paper's adversarial training); "one_cycle":
    up from peak/25 within the first 30 %, then down to almost zero, both as half a cosine (Smith &
    Topin, arXiv 1708.07120), which gets most out of few updates.
    """
    if schedule == "constant":
        return peak
    if schedule == "step":
        return peak if progress < 0.5 else peak / 10
    low, high, t = (peak / 25, peak, progress / 0.3) if progress < 0.3 else (peak / 1e5, peak, (1 - progress) / 0.7)
    return low + (high - low) * (1 - math.cos(math.pi * t)) / 2


def _yielded(phase, arguments, batches):
    """What an epoch function yields, if it does."""
    steps = phase.epoch(**arguments, batches=batches)
    if not hasattr(steps, "__next__"):
        raise ValueError(f"phase {phase.name!r}: its epoch function must yield its losses after each update, such as "
                         f'yield {{"content_loss": loss}}')
    return steps


def _averaged(layers):
    """What is averaged of a network's layers: weights and buffers, each once."""
    values = dict.fromkeys(chain.from_iterable(chain(layer._parameters.values(), layer._buffers.values())
                                               for layer in layers))
    return [value for value in values if value is not None and value.is_floating_point()]


def _fingerprint(learners):
    """Something that changes with the weights of networks."""
    sums = [weight.detach().float().sum() for learner in learners for weight in learner.network.parameters()]
    return torch.stack(sums).tolist() if sums else []  # (a GPU waits once)
