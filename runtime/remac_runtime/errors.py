"""What can go wrong, by who can mend it. Every message says what, where, what was expected and what to do, on one line."""
from __future__ import annotations


class RemacError(Exception):
    """Base of all errors that a user can act upon."""


class BadInput(RemacError):
    """The picture or the request cannot be coded."""


class CorruptStream(RemacError):
    """The bytes are not a valid stream, or were damaged."""


class UnsupportedStream(RemacError):
    """A valid stream that this build cannot decode: a newer version, a reserved feature."""


class WrongModel(RemacError):
    """The stream needs another network or bank than the one that is loaded."""


class BadNetwork(RemacError):
    """A network, bank or manifest file is missing, damaged or breaks a rule of FORMAT 4."""
