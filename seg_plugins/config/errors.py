"""The one error of this package's settings."""

from ..io.errors import SegPluginsError


class ConfigError(SegPluginsError, ValueError):
    """A configuration file, key or value is wrong; the message names it and the fix."""
