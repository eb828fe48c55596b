"""Fitted: what a network shows of its last training."""

from typing import Any

from nnet.layers.tree import numbered
from nnet.training.layouts import check_layout
from nnet.training.setup import check_layers, claim

NOT_FITTED = "this network is not fitted yet, expected a call of fit or build first"


class Fitted:
    """The attributes of a network that is set up, and the Model behind them."""

    layers: Any
    _layers: list
    _model: Any
    _transaction: Any
    _is_changed: bool

    @property
    def input_shape_(self):
        model = self._model
        return None if model is None else model.input_shape

    @property
    def dtype_(self):
        return self._attribute("dtype")

    @property
    def classes_(self):
        classes = self._attribute("classes")
        if classes is not None:
            classes = classes.view()
            classes.flags.writeable = False
        return classes

    @property
    def target_shape_(self):
        return self._attribute("target_shape")

    @property
    def history_(self):
        return {name: list(values) for name, values in self._attribute("history").values.items()}

    @property
    def loss_history_(self):
        return self._attribute("history")["loss"]

    @property
    def val_loss_history_(self):
        return self._attribute("history")["val_loss"]

    @property
    def val_error_history_(self):
        return list(self._attribute("history").val_error)

    def _attribute(self, name):
        model = self._model
        if model is None:
            raise AttributeError(NOT_FITTED)
        return getattr(model, name)

    # --- what everyone sees -----------------------------------------------------

    def _fitted(self):
        """The Model, in which all changes of options are taken up."""
        while True:
            model = self._model
            if model is None:
                raise ValueError(NOT_FITTED)
            is_stale = self._is_changed or not model.is_of(self._layers)
            if not (is_stale and self._is_live(model)):
                return model
            with model.lock:
                if self._is_live(model):  # still: no training has begun to change the layers
                    self._take_up_changes(model)
                    return model

    def _is_live(self, model):
        """Whether its layers are the network's own, not copies of them before a training."""
        transaction = self._transaction
        return self._model is model and (transaction is None or transaction.model is model)

    def _take_up_changes(self, model):
        children = numbered(check_layers(self.layers))
        claim(self, children)
        if model.signals:
            check_layout(children, model.input_shape, model.input_shape)
        model.plan(self.layers)
        self._is_changed = False

    def _is_current(self, model):
        return self._model is model

    def _at_one_moment(self, read):
        """What a function makes of the Model, between two steps of a training."""
        while True:
            model = self._fitted()
            with model.lock:
                if self._model is model:
                    return read(model)

    def _copied_model(self):
        return self._at_one_moment(lambda model: model.copy(self))
