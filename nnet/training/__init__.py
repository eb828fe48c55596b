"""Training: the network, one run of it, and what it is made of.
"""
