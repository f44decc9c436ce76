"""Arrays and ids in a folder: token vectors, what they came from, and how to find them. `Index` is the door."""

from index.directory import Index
from index.errors import OctavoError
from index.ragged import Codes, Ragged
from index.records import Origin, PageRecord
from index.settings import Settings

__all__ = ["Codes", "Index", "OctavoError", "Origin", "PageRecord", "Ragged", "Settings"]
