"""Fitting: the calls that train a network."""

from nnet.layers.hints import with_hints
from nnet.training.callbacks import as_callbacks
from nnet.training.fitted import Fitted
from nnet.training.run import TrainingRun

ONE_EPOCH = "one call for each epoch, or fit(..., warm_start=True)"


class Fitting(Fitted):
    """The methods of `NeuralNetwork` that train."""

    @with_hints()
    def fit(
        self,
        X,
        y=None,
        learning_rate=None,
        max_iter=10,
        batch_size=None,
        momentum=0.0,
        nesterov=False,
        shuffle=True,
        validation_data=None,
        verbose=False,
        callback=None,
        optimizer="sgd",
        *,
        sample_weight=None,
        class_weight=None,
        validation_fraction=None,
        metrics=(),
        callbacks=(),
        augment=None,
        clip_norm=None,
        clip_value=None,
        warm_start=False,
        resume=None,
    ):
        """Train on images X and targets y: afresh, unless `warm_start` or `resume` says else.

        Parameters
        ----------
        X : array (n_imgs, n_channels, img_h, img_w)
            Or (n_imgs, n_channels, length): signals, which train as images of
            height 1; all windows must have that height, or be given as one number, and
            n_channels and length differ: else they look like images without channels.
            A last axis of 1, 3 or 4 beside two of at least 8 looks like one of channels and is
            refused, unless `build` was given that shape; columns (n_channels, length, 1) pass
            where windows are so too, as (5, 1) is, and n_channels and length differ. So are
            signals of at least 8 channels that have at most 4 values, or no more than the first
            wide window: X.transpose(0, 2, 1) makes (n_imgs, n_channels, length) of Keras's layout.
            Or (n_imgs, n_features), for networks without Conv and Pool.
            Converted to floats batch by batch; it may be a memory-mapped file.
            Or, without y, an iterable of batches (X, y) or (X, y, weights) that gives as many
            images anew in each epoch, such as a PyTorch DataLoader: it shuffles as it likes.
            Once before the first epoch it is only looked at. With a `Checkpoint` it must give the
            same batches each time: the first one is compared before any step.
        y : array (n_imgs,) of labels of any one kind, or of floats for regression
            Labels of pixels, (n_imgs, img_h, img_w), for a last layer with scores
            (n_imgs, n_classes, img_h, img_w); of signals (n_imgs, length). Regression targets
            may have more axes: those of the last layer's output, for signals without the
            height. They are converted to the dtype of X batch by batch.
        learning_rate : float, Schedule, or callable epoch -> float with epochs counted from 0
            Default: that of the optimizer, 0.1 for SGD; refused if it was given one itself.
            A function is called once for each epoch.
        max_iter : int
            Number of epochs, of this call. Each one uses every image once.
        batch_size : None or int
            None: 64, or as an iterable gives them. The last batch of an epoch may be smaller.
        momentum, nesterov : float, bool
            See `SGD`.
        shuffle : bool
            Draw a new order of the images for each epoch.
        validation_data : None, (X, y), (X, y, weights) or an iterable of batches
            Evaluated after each epoch. class_weight has no say there.
        verbose : bool
            Print one line after each epoch.
        callback : None or callable
            Called with a `Progress` after each batch. Training stops if it returns True or
            raises `StopTraining`, and goes on if it returns None or False.
        optimizer : 'sgd', 'adam', 'adamw', 'rmsprop' or Optimizer
            An instance is copied, and starts afresh.
        sample_weight : None or array (n_imgs,)
            At least 0. The loss, its gradient and the accuracy are weighted means over a batch:
            an image of weight 2 counts as two. A batch of zeros changes nothing.
        class_weight : None, 'balanced' or dict of float by label
            Multiplies the weights of the images of each class; classes that are not named weigh
            1. 'balanced' is n_imgs / (n_classes * count), where an image of weight 2 counts as two.
            An image has one weight also where the loss has label_smoothing: PyTorch weights the
            smoothed part by each class's own.
        validation_fraction : None or float
            This part of the images is held back for validation, of each class the same; at least
            one.
        metrics : None, callable, or list of callables of (y, predictions)
            Such as those of sklearn.metrics: their values, for the training images (each as it
            was predicted before its step) and the validation images of each epoch, stand in
            `history_` by the functions' names. Images of weight 0 are left out.
        callbacks : None, callable, or list of callables
            Like `callback`, and `Callback` objects such as `EarlyStopping`, `Checkpoint` and
            `ProgressBar`.
        augment : None, augmentation, callable, or list of these
            What is done at random to the training images, anew in each epoch, such as
            [Shift(2), Rotate(10)]. It follows from the seed, the epoch and which image of X it is:
            neither the order nor the batches matter. Where the last axes of y are the sides of the
            images, as those of labels of pixels are, and the loss gets more than a list of numbers
            for each image, y moves with them: labels and 0/1 masks are those of the nearest pixel,
            values of regression are interpolated, and what comes in has a target only with
            fill='nearest'. Or a function of a batch of images that
            returns changed ones, and that must not move pixels where y has some; a parameter
            `rng` of it gets the epoch's random numbers.
            Validation images stay as they are.
        clip_norm, clip_value : None or float
            The most for the norm of all gradients together, or (not both) for each value.
        warm_start : bool
            Go on from the parameters there are, and add to the histories. A network that is not
            fitted starts afresh.
        resume : None or path
            A file that a `Checkpoint` of the same call has written: the training goes on from
            there, and ends with the bits of one that was never stopped. Other data, layers or
            options are refused, as far as they can be told: of functions and of layers of your
            own only the names, of images a sample. `max_iter` may be larger; `verbose`, and
            callbacks that nothing depends on, may be others.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For arrays, options or layers that do not fit together.
            An iterable that gives other numbers of images in a later epoch ends the training.
        DivergedError
            If the loss of a batch, or a parameter after an epoch, is not finite.
        RuntimeError
            While another `fit` of the network runs.
        OSError
            If a checkpoint cannot be read or written; the last step is kept.

        Notes
        -----
        After a DivergedError, or any exception before the first step, the network, its
        parameters and its rng are what they were before the call. Any other exception,
        from a callback or by Ctrl-C, keeps parameters and statistics of the last step;
        `EarlyStopping` then puts back those of its best epoch. Taking up a checkpoint is a step.
        A layer of your own names its statistics by `state_names`: what it keeps otherwise is
        neither put back nor in checkpoints.
        """
        TrainingRun(
            self,
            learning_rate=learning_rate,
            max_iter=max_iter,
            batch_size=batch_size,
            momentum=momentum,
            nesterov=nesterov,
            shuffle=shuffle,
            verbose=verbose,
            callbacks=as_callbacks(callbacks, callback),
            metrics=metrics,
            optimizer=optimizer,
            warm_start=warm_start,
            augment=augment,
            clip_norm=clip_norm,
            clip_value=clip_value,
            resume=resume,
        ).run(
            X,
            y,
            sample_weight=sample_weight,
            class_weight=class_weight,
            validation_data=validation_data,
            validation_fraction=validation_fraction,
        )
        return self

    @with_hints(**dict.fromkeys(("epochs", "n_epochs", "max_iter"), ONE_EPOCH))
    def partial_fit(
        self,
        X,
        y=None,
        classes=None,
        learning_rate=None,
        batch_size=None,
        momentum=0.0,
        nesterov=False,
        optimizer="sgd",
        *,
        shuffle=True,
        sample_weight=None,
        class_weight=None,
        augment=None,
        clip_norm=None,
        clip_value=None,
    ):
        """Train for one epoch on images X and targets y, from the parameters there are.

        Parameters
        ----------
        X, y and the others : as for `fit`
        classes : None or array
            All labels that any call will have, for the first call; None: those in y.
        optimizer : 'sgd' and so on, or Optimizer
            If it has the options of the call before, but the learning rate, and the same layers
            to train, it goes on with its momentum and the like, and so does the learning rate if
            it is the same schedule or function: epochs and steps are counted from where it began;
            those of CosineDecay and OneCycle are so many epochs, whatever the batches of each.
            A schedule whose length is max_iter needs n_epochs=. A copy or a file of the network
            does not keep these.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError, DivergedError, RuntimeError
            As `fit` does; images that all have the weight 0 are no error here, and change nothing
            but the history, whose values are NaN then: no epoch of a schedule.
        """
        TrainingRun(
            self,
            learning_rate=learning_rate,
            max_iter=1,
            batch_size=batch_size,
            momentum=momentum,
            nesterov=nesterov,
            shuffle=shuffle,
            verbose=False,
            callbacks=[],
            metrics=(),
            optimizer=optimizer,
            augment=augment,
            clip_norm=clip_norm,
            clip_value=clip_value,
            warm_start=True,
            keep_optimizer=True,
        ).run(X, y, classes=classes, sample_weight=sample_weight, class_weight=class_weight)
        return self
