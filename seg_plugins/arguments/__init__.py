"""The flags of every command: this folder imports argparse alone.

So ``--help``, a wrong flag and shell completion are answered before PyTorch and Detectron2 load.
:mod:`.commands` has the table of commands; each has a module here, with its flags, and one of the
same name in :mod:`seg_plugins.cli`, which does the work.
"""
