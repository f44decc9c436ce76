"""Arrays and ids in a folder: token vectors, what they came from, and how to find them. `Index` is the door."""

from index.directory import Index, Settings
from index.errors import OctavoError
from index.ragged import Codes, Ragged
from index.records import Origin, PageRecord

__all__ = ["Codes", "Index", "OctavoError", "Origin", "PageRecord", "Ragged", "Settings"]
