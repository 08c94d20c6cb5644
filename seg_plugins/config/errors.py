"""The one error of this package's settings."""


class ConfigError(ValueError):
    """A configuration file, key or value is wrong; the message names it and the fix."""
