"""Files that a network reads and writes.

saving.py       networks as safetensors files
checkpoints.py  trainings likewise
tensors.py      how such files are written and read
replacing.py    how files are replaced in one step
regular.py      what is no regular file
datasets.py     digits, .npz files, the test split
images.py       to_bc01
image_files.py  load_images: files of pictures as arrays
folders.py      image_folder: one folder for each class
"""
