"""Stepping: an optimizer with its schedule, and how far they are."""

from copy import copy

from nnet.layers.arguments import as_float
from nnet.training.resuming import described
from nnet.training.schedules import Constant, as_schedule


class Stepping:
    """By what a training steps: `partial_fit` goes on with that of the training before.

    Parameters
    ----------
    optimizer : Optimizer
        Its learning rate is, or becomes, the schedule.

    Attributes
    ----------
    schedule : Schedule
    n_epochs, n_steps : int
        That have ended since the schedule began.
    """

    def __init__(self, optimizer):
        self.optimizer, self.schedule = optimizer, copy(as_schedule(optimizer.learning_rate))
        self.n_epochs = self.n_steps = 0

    def check_open_end(self):
        """Refuse a schedule that has to know how many epochs there will be."""
        schedule = self.schedule
        if schedule.depends_on_max_iter:
            has_length = hasattr(schedule, "n_epochs")
            expected = "one with n_epochs=" if has_length else "depends_on_max_iter to be False"
            raise ValueError(
                f"learning_rate is a {type(schedule).__name__} that depends on max_iter, "
                f"expected {expected}: each partial_fit is one epoch of any number"
            )

    def begin(self, trained, decays, n_epochs, n_steps, monitors, before=None):
        """Begin a training.

        Parameters
        ----------
        trained : dict of str to array
            The parameters, by name.
        decays : list of bool
            See `Optimizer.bind`.
        n_epochs, n_steps : int
            Of this training; of each epoch.
        monitors : list of str
            See `Schedule.start`.
        before : None or Stepping
            What to go on with, as far as it is of the same kind and options.
        """
        self.optimizer.bind(list(trained.values()), decays)
        self._trained = {name: array.shape for name, array in trained.items()}
        self._n_steps_of_epoch, self._monitors = n_steps, monitors
        self.schedule.start(n_epochs, monitors)
        if before is not None:
            self._go_on(before)
        self._n_planned = self.n_epochs + n_epochs

    def _go_on(self, before):
        is_same = self._trained == before._trained
        if not (is_same and self.optimizer.goes_on(before.optimizer)):
            return
        self.optimizer.load_state(before.optimizer.state())
        if described(self.schedule) == described(before.schedule):
            self.n_epochs, self.n_steps = before.n_epochs, before.n_steps
            if self._monitors == before._monitors:
                self.schedule.load_state(before.schedule.state())

    def resume(self, n_epochs, optimizer, schedule):
        """Take over the states of both, after so many epochs of this training."""
        self.optimizer.load_state(optimizer)
        self.schedule.load_state(schedule)
        self.n_epochs, self.n_steps = n_epochs, n_epochs * self._n_steps_of_epoch

    def begin_step(self, step):
        """Set the learning rate of a step of the epoch, from 0."""
        if type(self.schedule) is Constant:  # the hot path: it is the optimizer's
            return
        n_steps = self._n_steps_of_epoch
        before = self.n_epochs * n_steps if self.schedule.step_follows_epoch else self.n_steps
        rate = self.schedule(before + step, self.n_epochs, n_steps, self._n_planned)
        self.optimizer.learning_rate = as_float(rate, "learning_rate")

    def end_epoch(self, progress):
        """Count an epoch, and let the schedule take note of it."""
        self.n_epochs += 1
        self.n_steps += self._n_steps_of_epoch
        self.schedule.end_epoch(progress)

    def end(self):
        """Let go of the parameters: nobody but the layers holds them from now on."""
        self.optimizer.params = []
