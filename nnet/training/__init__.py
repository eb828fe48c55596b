"""Training: networks, a call of fit, and what it is made of.

network.py     NeuralNetwork: fit, predict, state_dict, save
inside.py      what it lets one do with single layers
run.py         TrainingRun: one call of fit
augment.py     Shift, Rotate and other augmentations
augmenting.py  how they are put together, and drawn
setup.py       how layers are set up, and put back where that fails
model.py       Model: layers that are set up, and what they compute
layouts.py     which axes of X are what
data.py        the checks of X and y
optimizers.py  SGD
progress.py    what callbacks are told
gradients.py   gradients by central differences
"""
