"""What a training may be resumed with, and what is refused by its name."""

import pytest
from checkpoints import X, call, network, stopping
from trouble import assert_nothing_lent, everything

from nnet import SGD, Checkpoint, CosineDecay, OneCycle, Schedule

pytest.importorskip("safetensors")


def save(path, net, **options):
    """The network after a training that has written a checkpoint."""
    return net.fit(**options, callbacks=[stopping(), Checkpoint(path)])


def refuses(path, message, make=network, **options):
    """A fit that is resumed is refused, and changes nothing."""
    net = make().fit(**call(max_iter=1))
    before = everything(net, X)
    with pytest.raises(ValueError, match=message) as caught:
        net.fit(**{"callbacks": [stopping()]} | options, resume=path)
    assert everything(net, X) == before
    assert_nothing_lent(net)
    return str(caught.value)


# --- lengths ----------------------------------------------------------------------------------


class Planned(Schedule):
    """It says nothing of max_iter, and depends on it."""

    def __call__(self, step, epoch, n_steps_per_epoch, n_epochs):
        return 0.05 / n_epochs


class Unplanned(Planned):
    depends_on_max_iter = False

    def __call__(self, step, epoch, n_steps_per_epoch, n_epochs):
        return 0.05 / (1 + step)


def scheduled(schedule, **options):
    return call(**options, learning_rate=None, momentum=0.0, optimizer=SGD(schedule))


@pytest.mark.parametrize("schedule", [Planned(), CosineDecay(0.1), OneCycle(0.1)])
def test_max_iter_may_not_grow_where_the_rates_depend_on_it(schedule, tmp_path):
    path = tmp_path / "c"
    expected = everything(save(path, network(), **scheduled(schedule)), X)
    name = type(schedule).__name__
    message = f"max_iter is 5, expected 4 as in the training of {path}: {name} was planned for that"
    refuses(path, message, **scheduled(schedule, max_iter=5))
    same = network().fit(**scheduled(schedule), callbacks=[stopping()], resume=path)
    assert everything(same, X) == expected


@pytest.mark.parametrize(
    "schedule", [Unplanned(), CosineDecay(0.1, n_epochs=4), OneCycle(0.1, n_epochs=6)]
)
def test_max_iter_may_grow_where_they_do_not(schedule, tmp_path):
    save(tmp_path / "c", network(), **scheduled(schedule, max_iter=3))
    longer = scheduled(schedule, max_iter=5)
    expected = network().fit(**longer, callbacks=[stopping()])
    found = network().fit(**longer, callbacks=[stopping()], resume=tmp_path / "c")
    assert everything(found, X) == everything(expected, X)
