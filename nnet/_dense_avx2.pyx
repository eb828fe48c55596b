include "_dense.pyx"
