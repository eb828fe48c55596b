"""CNNClassifier and CNNRegressor: networks as scikit-learn's estimators.

Nothing else in nnet needs scikit-learn to train or predict.

classifier.py, regressor.py   the two classes
base.py                       what they share: fit, partial_fit, and what shows a training
inputs.py                     which axes of X are what
choosing.py                   layers from names, texts, functions, lists, or the shape of X
options.py                    optimizers and schedules by the names of the parameters
hints.py                      what to type in place of other libraries' names
threads.py                    how many threads a worker of joblib or Dask may use
"""

try:
    from nnet.estimators.classifier import CNNClassifier
    from nnet.estimators.regressor import CNNRegressor
except ImportError as error:
    if (error.name or "").partition(".")[0] != "sklearn":
        raise
    raise ImportError(
        "CNNClassifier and CNNRegressor need scikit-learn 1.6 or newer: "
        'pip install "scikit-learn>=1.6"',
        name="sklearn",
    ) from error

__all__ = ["CNNClassifier", "CNNRegressor"]
