"""Fitted: what a network shows of its last training."""

from typing import Any

NOT_FITTED = "this network is not fitted yet, expected a call of fit or build first"


class Fitted:
    """The attributes of a network that is set up; see `NeuralNetwork`."""

    _model: Any

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
