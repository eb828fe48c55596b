"""Files that a network reads and writes.

saving.py     networks as safetensors files
datasets.py   digits, .npz files, the test split
images.py     to_bc01
"""
