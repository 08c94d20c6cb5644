"""The one family of errors: everything that a user can put right, with a message that says how."""

from __future__ import annotations

__all__ = ["DatasetError", "SegPluginsError"]


class SegPluginsError(Exception):
    """Something that the user can put right: a file, a setting, a model, a machine.

    The command lines print it without a traceback. Each part has classes of its own, which are
    the built-in exception that fits too (ValueError, RuntimeError, OSError).
    """


class DatasetError(SegPluginsError, ValueError):
    """A file of a dataset is missing, damaged or contradicts its annotation.

    The message names the file, the record and the field where one is known, and the fix where
    there is one. Nothing that stands in an annotation file may raise anything else.
    """
