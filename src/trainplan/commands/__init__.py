"""The commands of the ``trainplan`` program, one file each."""
