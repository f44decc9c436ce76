"""The settings of an index: written at its creation, changed by `octavo recode` alone, read with every generation."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sqlite_utils import Database

from index import catalog
from index.blocks import Layout
from index.candidates import STAGES
from index.codec import check_dim
from index.errors import DamageError, FormatError

_KEY = "index"


class Settings(NamedTuple):
    """uid: names the index; fingerprint: of the encoder that fills it; pool: tokens that become one stored vector, on
    average; centre: the mean token, hex of float32, "" for a codec that needs none and before the first tokens."""

    uid: str
    dim: int
    single_dim: int
    codec: str
    candidates: str
    fingerprint: dict[str, Any]
    pool: int = 1
    centre: str = ""

    @property
    def layout(self) -> Layout:
        """What the blocks of the index look like."""
        centre = np.frombuffer(bytes.fromhex(self.centre), "<f4") if self.centre else None
        return Layout(uuid.UUID(self.uid).bytes, self.dim, self.codec, self.single_dim, centre)

    def centred(self, mean: np.ndarray) -> Settings:
        """With a mean token (d,) as the centre."""
        return self._replace(centre=mean.astype("<f4").tobytes().hex())


def read(db: Database, folder: Path) -> Settings:
    """The settings that a transaction sees. Raises DamageError, and FormatError for what this version does not know."""
    stored = catalog.setting(db, _KEY)
    if stored is None:
        raise DamageError(f"{folder / catalog.FILE}: the settings are gone; restore it, or index again elsewhere")
    try:
        settings = Settings(**stored | {"fingerprint": dict(stored["fingerprint"])})
        _check(settings)
        return settings
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise FormatError(
            f"{folder}: settings that this Octavo does not know ({error}); install a newer one"
        ) from error


def _check(settings: Settings) -> None:
    """Raise ValueError, TypeError or AttributeError for what this version cannot work with."""
    sizes = (settings.dim, settings.single_dim, settings.pool)
    if not all(isinstance(size, int) and 0 < size < 1 << 20 for size in sizes):
        raise ValueError(f"sizes {sizes}")
    check_dim(settings.codec, settings.dim)
    centre = settings.layout.centre
    if centre is not None and (centre.shape != (settings.dim,) or not np.isfinite(centre).all()):
        raise ValueError(f"a centre of {len(centre)} components")
    if settings.candidates not in STAGES:
        raise ValueError(f"candidates {settings.candidates!r}")


def write(db: Database, settings: Settings) -> None:
    """Store the settings, inside the caller's transaction."""
    catalog.put_setting(db, _KEY, settings._asdict())
