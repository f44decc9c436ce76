"""Pages of image files, by Pillow: PNG, JPEG, TIFF (a page a frame) and WebP (its first frame).

An image is one page of its own size: made smaller to fit the caps, never larger. Sizes are checked before a pixel is
decoded. Has no words.
"""

from __future__ import annotations

import io
import math
import warnings
from typing import Any

from PIL import (
    Image,
    ImageFile,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from .drawing import Caps, Drawing, Failed, fit

MAX_IMAGE_PIXELS = 100_000_000  # width x height before scaling: an A3 page at 600 dpi is 70 million

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PLUGINS = (
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)  # imported before the jail
Image.MAX_IMAGE_PIXELS = MAX_IMAGE_PIXELS
ImageFile.LOAD_TRUNCATED_IMAGES = False
warnings.simplefilter("ignore")
warnings.simplefilter("error", Image.DecompressionBombWarning)


class Picture:
    """Raises `Failed`: "damaged", "oversize", "oom"."""

    title = ""

    def __init__(self, data: bytes, kind: str) -> None:
        self._data = data
        self._kind = kind
        with _Failures("the image cannot be read"):
            self._image: Image.Image | None = self._read()
            self.pages = _frames(self._image) if kind == "tiff" else 1

    def draw(self, number: int, dpi: float, caps: Caps) -> Drawing:
        with _Failures("the image cannot be decoded"):
            self._image = self._image or self._read()
            try:
                if self.pages > 1:
                    self._image.seek(number - 1)
                return _draw(self._image, caps)
            finally:
                if self.pages == 1:
                    self.close()  # lets go of its pixels; a frame of a TIFF goes when the next is read

    def close(self) -> None:
        if self._image is not None:
            self._image.close()
        self._image = None

    def _read(self) -> Image.Image:
        return Image.open(io.BytesIO(self._data), formats=(self._kind.upper(),))


class _Failures:
    """Turns what Pillow raises into `Failed`."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
            raise Failed("oversize", _too_large("the image")) from None
        if isinstance(error, MemoryError):
            raise Failed("oom", f"{self.what}: it needs more memory than the limit") from None
        if isinstance(error, UnidentifiedImageError):
            raise Failed("damaged", f"{self.what}: it only starts like one") from None
        if isinstance(error, Exception) and not isinstance(error, Failed):
            raise Failed("damaged", f"{self.what}: {str(error) or type(error).__name__}") from None


def _frames(image: Image.Image) -> int:
    """How many frames a TIFF has, the first one that cannot be read counted; what comes after it cannot be found."""
    frames = 1
    while True:
        try:
            image.seek(frames)
        except EOFError:
            return frames
        except Exception:  # Pillow raises whatever its parsers do
            return frames + 1
        frames += 1


def _draw(image: Image.Image, caps: Caps) -> Drawing:
    width, height = image.size
    if width * height > MAX_IMAGE_PIXELS:
        raise Failed("oversize", _too_large(f"the image of {width} x {height} pixels"))
    size = fit(width, height, 1, caps)
    x_dpi, y_dpi = _dpi(image)
    image.draft("RGB", size)  # a JPEG is decoded at a half, quarter or eighth where that is still large enough
    image.load()
    upright = _rgb(_shrunk(_plain(image), size))
    orientation = _orientation(image)
    if orientation in _UPRIGHT:
        upright = upright.transpose(_UPRIGHT[orientation])
    if orientation >= 5:  # turned by a quarter
        width, height, x_dpi, y_dpi = height, width, y_dpi, x_dpi
    return Drawing(upright.width, upright.height, upright.tobytes(), (), width * 72 / x_dpi, height * 72 / y_dpi)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; Pillow has already applied that of a TIFF when it loaded it."""
    try:
        found = image.getexif().get(0x0112, 1)
    except Exception:  # whatever is in there, the picture is readable without it
        return 1
    return found if found in _UPRIGHT else 1


def _plain(image: Image.Image) -> Image.Image:
    """In a mode that can be made smaller with good averages: L, RGB, CMYK, LA, RGBA."""
    if image.mode.startswith("I") or image.mode == "F":
        return _grey(image)
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("P", "PA") or "transparency" in image.info:
        clear = image.mode == "PA" or "transparency" in image.info
        return image.convert("RGBA" if clear else "RGB")
    return image if image.mode in ("L", "RGB", "CMYK", "LA", "RGBA") else image.convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    """16-bit by its high byte; 32-bit and floating point from least to most."""
    wide = image.convert("F")
    low, high = (0.0, 65535.0) if image.mode.startswith("I;16") else _range(wide)
    return wide.point(lambda value: value * (255 / (high - low)) + (-low * 255 / (high - low))).convert("L")


def _range(image: Image.Image) -> tuple[float, float]:
    low, high = (float(value) for value in image.getextrema())  # type: ignore[arg-type]
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Failed("damaged", "the image has values that are no finite numbers")
    if low >= 0:
        low, high = 0.0, next((full for full in (1.0, 255.0, 65535.0) if high <= full), high)
    return (low, high) if high > low else (low, low + 1)


def _shrunk(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0) if image.size != size else image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("LA", "RGBA"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _dpi(image: Image.Image) -> tuple[float, float]:
    found: Any = image.info.get("dpi")
    try:
        x, y = (float(value) for value in found)
    except (TypeError, ValueError, ZeroDivisionError):
        return 72.0, 72.0
    if not (10 <= x <= 10_000 and 10 <= y <= 10_000):
        return 72.0, 72.0
    return _near(x), _near(y)


def _near(dpi: float) -> float:
    """PNG stores 144 dpi as 5669 dots a metre, which reads as 143.99."""
    return float(round(dpi)) if abs(dpi - round(dpi)) < 0.05 else dpi


def _too_large(what: str) -> str:
    return f"{what} is larger than the limit of {MAX_IMAGE_PIXELS / 1e6:g} million pixels"
