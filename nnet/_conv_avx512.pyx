include "_conv.pyx"
