"""The errors a caller can expect, each with what was found and what to do. `OctavoError` is the base of all of them."""

from __future__ import annotations


class OctavoError(Exception):
    """Something a person can put right; the message says how."""


class NotAnIndex(OctavoError):
    """The folder holds no index, or something that cannot be read as one."""


class IndexLocked(OctavoError):
    """Another process is writing; the message names it."""


class FormatError(OctavoError):
    """The index was written by another version, or by nobody who knows the format."""


class OldFormat(FormatError):
    """The index was written by an earlier version and is brought up to date by whoever can write to it."""


class EncoderMismatch(OctavoError):
    """The encoder is not the one that filled the index: its vectors would not compare."""


class DamageError(OctavoError):
    """Stored bytes are not what was written; the message names document, page, file and offset."""


class QueryError(OctavoError, ValueError):
    """A query, filter or option that cannot be answered as it stands."""


class UnknownDocument(OctavoError, KeyError):
    """No document of the index fits what was asked for."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class DiskFull(OctavoError):
    """A write failed; what was acknowledged before it is safe, and the next add goes on from there."""
