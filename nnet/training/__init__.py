"""Training: networks, a call of fit, and what it is made of.

network.py     NeuralNetwork: predict, error, state_dict, save
fitting.py     fit and partial_fit
fitted.py      the attributes of a network that is set up
inside.py      what a network lets one do with single layers
run.py         TrainingRun: one call of fit
batches.py     where its batches come from: arrays or iterables
weights.py     weights of images and classes; images held back
resuming.py    checkpoints: what a training keeps, and how it goes on
callbacks.py   EarlyStopping, Checkpoint, ProgressBar
metrics.py     what is reported beside the loss
augment.py     Shift, Rotate and other augmentations
augmenting.py  how they are put together, and drawn
states.py      what layers keep of the images that training has seen
setup.py       how layers are set up, and put back where that fails
model.py       Model: layers that are set up, and what they compute
layouts.py     which axes of X are what
data.py        the checks of X and y
optimizers.py  SGD, Adam, AdamW, RMSprop
schedules.py   learning rates that change
stepping.py    an optimizer with its schedule, and how far they are
clipping.py    gradients that are too large
progress.py    what callbacks are told; histories
telling.py     what a verbose training prints, and warnings
gradients.py   gradients by central differences
summary.py     the layers of a network as a table
"""
