"""The command line: ``seg-plugins COMMAND``, ``python -m seg_plugins``, and the scripts in tools/.

:mod:`.main` reads the arguments (:mod:`seg_plugins.arguments`) and calls ``run`` in the module of
the command's name.
"""
