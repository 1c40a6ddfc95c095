"""What can go wrong with the embedded stack; each text says what to do about it."""

from __future__ import annotations

from mqinfer.errors import ConfigurationError, MqinferError


class StackError(MqinferError):
    """The embedded stack could not do what was asked of it."""


class StackConfigurationError(StackError, ConfigurationError):
    """The settings or the installation do not allow the stack to start.

    Nothing was started when this is raised: a taken port, a folder in use, a
    missing extra, a platform without the server.
    """


class NotInstalled(StackConfigurationError):
    """There is no such server here; another one may take its place without a word."""
