"""Damaged and hostile files, made here: each is small, legal or nearly so, and meant to hang, flood or crash a reader.

`files()` gives name -> bytes; `OUTCOMES` says how each may end ("page" for a page that is drawn, otherwise a state).
Nothing is copied from anywhere; the ideas are the known classes of shared/reference/reliability.md, section 3.1.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Sequence

from PIL import Image

A4 = b"[0 0 595 842]"
HANGS = ("laughs.pdf", "tiling.pdf")  # stall MuPDF for minutes to hours, whatever the machine


def pdf(objects: Sequence[bytes], *, root: int = 1, trailer: bytes = b"") -> bytes:
    """A PDF file of `objects`, numbered from 1, with a correct cross-reference table."""
    out = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<</Size %d/Root %d 0 R%b>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, root, trailer, start)
    return bytes(out)


def stream(data: bytes, entries: bytes = b"", *, deflate: int = 0) -> bytes:
    """A stream object; deflate: how many times its data is compressed."""
    for _ in range(deflate):
        data = zlib.compress(data, 9)
    filters = b"/Filter[" + b"/FlateDecode " * deflate + b"]" if deflate else b""
    return b"<</Length %d%b%b>>\nstream\n%b\nendstream" % (len(data), filters, entries, data)


def deflated(chunk: bytes, times: int) -> bytes:
    """zlib.compress(chunk * times), in the time that one chunk takes: its flushed block is repeated."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(chunk) + packer.flush(zlib.Z_FULL_FLUSH)
    low, high = zlib.adler32(chunk) & 0xFFFF, zlib.adler32(chunk) >> 16
    a, b = 1, 0
    for _ in range(times):
        a, b = (a + low - 1) % 65521, (b + len(chunk) * (a - 1) + high) % 65521
    return b"\x78\xda" + block * times + b"\x03\x00" + struct.pack(">I", b << 16 | a)


def packed(chunk: bytes, times: int, entries: bytes = b"") -> bytes:
    """A stream object of `chunk` `times` over, compressed twice."""
    data = zlib.compress(deflated(chunk, times), 9)
    return b"<</Length %d/Filter[/FlateDecode/FlateDecode]%b>>\nstream\n%b\nendstream" % (len(data), entries, data)


def page(
    content: bytes | None, *more: bytes, box: bytes = A4, resources: bytes = b"", extra: bytes = b"", deflate: int = 0
) -> bytes:
    """A PDF of one page; content: its stream (object 4); more: objects from 5."""
    entries = b"<</Type/Page/Parent 2 0 R/MediaBox%b/Contents 4 0 R/Resources<<%b>>%b>>" % (box, resources, extra)
    tree = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>", entries]
    return pdf([*tree, stream(content or b"", deflate=deflate), *more])


def good() -> bytes:
    """A page that says "Octavo finds the page" and is red in its upper left quarter."""
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
    content = b"1 0 0 rg 0 421 297.5 421 re f 0 g BT /F 24 Tf 72 200 Td (Octavo finds the page) Tj ET"
    return page(content, font, resources=b"/Font<</F 5 0 R>>")


def billion_laughs(levels: int = 9, fan: int = 10) -> bytes:
    """Forms that each draw the next one `fan` times: fan ** levels rectangles."""
    forms = []
    for level in range(levels):
        deeper = b"/Resources<</XObject<</X %d 0 R>>>>" % (6 + level)
        forms.append(stream(b"/X Do " * fan, b"/Type/XObject/Subtype/Form/BBox[0 0 595 842]" + deeper))
    forms.append(stream(b"0 0 9 9 re f", b"/Type/XObject/Subtype/Form/BBox[0 0 595 842]"))
    return page(b"/X Do", *forms, resources=b"/XObject<</X 5 0 R>>")


def self_reference() -> bytes:
    form = b"/Type/XObject/Subtype/Form/BBox[0 0 595 842]/Resources<</XObject<</X 5 0 R>>>>"
    return page(b"/X Do", stream(b"/X Do /X Do", form), resources=b"/XObject<</X 5 0 R>>")


def tiling(step: float = 0.01) -> bytes:
    entries = b"/Type/Pattern/PatternType 1/PaintType 1/TilingType 1/BBox[0 0 1 1]/XStep %.3f/YStep %.3f/Resources<<>>"
    content = b"/Pattern cs /P scn 0 0 595 842 re f"
    pattern = stream(b"1 0 0 rg 0 0 .005 .005 re f", entries % (step, step))
    return page(content, pattern, resources=b"/Pattern<</P 5 0 R>>")


def content_bomb(size: int = 500 * 2**20) -> bytes:
    """A content stream that grows from some kilobytes to `size` bytes of operators."""
    line = b"0 0 m 595 842 l S\n" * 50_000
    return tree(
        b"3 0 R", 1, b"<</Type/Page/Parent 2 0 R/MediaBox%b/Contents 4 0 R>>" % A4, packed(line, size // len(line))
    )


def transparency(groups: int = 20_000) -> bytes:
    form = b"/Type/XObject/Subtype/Form/BBox[0 0 595 842]/Group<</S/Transparency/I true>>"
    state = b"/ExtGState<</G<</ca .5/BM/Multiply>>>>"
    content = b"/G gs\n" + b"/X Do\n" * groups
    entries = b"/XObject<</X 5 0 R>>" + state
    return page(content, stream(b".5 g 0 0 595 842 re f", form), resources=entries, deflate=1)


def nested_groups(depth: int = 60) -> bytes:
    """Transparency groups within each other: a picture of the page in memory for each."""
    forms = []
    for level in range(depth):
        deeper = b"/Resources<</XObject<</X %d 0 R>>/ExtGState<</G<</ca .5>>>>>>" % (6 + level)
        group = b"/Type/XObject/Subtype/Form/BBox[0 0 595 842]/Group<</S/Transparency/I true>>" + deeper
        forms.append(stream(b"/G gs 0 0 300 300 re f /X Do", group))
    forms.append(stream(b"0 0 9 9 re f", b"/Type/XObject/Subtype/Form/BBox[0 0 595 842]"))
    return page(b"/G gs /X Do", *forms, resources=b"/XObject<</X 5 0 R>>/ExtGState<</G<</ca .5>>>>")


def image_bomb(side: int, colours: int = 3) -> bytes:
    """An image of side x side pixels in a few kilobytes."""
    space = b"/DeviceRGB" if colours == 3 else b"/DeviceGray"
    entries = b"/Type/XObject/Subtype/Image/Width %d/Height %d/BitsPerComponent 8/ColorSpace%b" % (side, side, space)
    image = packed(bytes(side * colours), side, entries)
    return page(b"595 0 0 842 0 0 cm /I Do", image, resources=b"/XObject<</I 5 0 R>>")


def lines(count: int = 3_000_000) -> bytes:
    rng = random.Random(5)
    some = b"".join(b"%d %d l\n" % (rng.randrange(595), rng.randrange(842)) for _ in range(20_000))
    kids = b"<</Type/Page/Parent 2 0 R/MediaBox%b/Contents[4 0 R 5 0 R 4 0 R]>>" % A4
    return tree(b"3 0 R", 1, kids, stream(b"0 0 m S 0 0 m\n"), packed(some, count // 20_000))


def nested_arrays(depth: int = 200_000) -> bytes:
    return page(b"0 g", b"[" * depth + b"]" * depth, extra=b"/Deep 5 0 R")


def dash(step: float = 1e-7) -> bytes:
    return page(b"[%.8f %.8f] 0 d 0 0 m 595 842 l S" % (step, step))


def shading_function() -> bytes:
    """A PostScript function of a million operators, evaluated for each pixel of a shading."""
    function = stream(
        b"{" + b"dup mul 1 add " * 250_000 + b"}", b"/FunctionType 4/Domain[0 1 0 1]/Range[0 1]", deflate=1
    )
    shading = b"<</ShadingType 1/ColorSpace/DeviceGray/Domain[0 1 0 1]/Function 6 0 R/Matrix[595 0 0 842 0 0]>>"
    return page(b"/S sh", shading, function, resources=b"/Shading<</S 5 0 R>>")


def tree(kids: bytes, count: int, *more: bytes) -> bytes:
    return pdf([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[%b]/Count %d>>" % (kids, count), *more])


def deep_tree(depth: int = 50_000) -> bytes:
    nodes = [b"<</Type/Pages/Parent %d 0 R/Kids[%d 0 R]/Count 1>>" % (n - 1, n + 1) for n in range(3, depth)]
    return tree(b"3 0 R", 1, *nodes, b"<</Type/Page/Parent %d 0 R/MediaBox%b>>" % (depth - 1, A4))


def many_kids(count: int = 200_000) -> bytes:
    return tree(b"3 0 R " * count, count, b"<</Type/Page/Parent 2 0 R/MediaBox%b>>" % A4)


def xref_loop() -> bytes:
    """Two cross-reference tables that name each other as the one before."""
    data = good()
    start = data.rindex(b"startxref")
    first = int(data[start:].split()[1])
    second = len(data)
    more = b"xref\n0 0\ntrailer\n<</Size 6/Root 1 0 R/Prev %d>>\nstartxref\n%d\n%%%%EOF\n" % (first, second)
    return data.replace(b"/Root 1 0 R>>", b"/Root 1 0 R/Prev %d>>" % second) + more


def object_stream_loop() -> bytes:
    """An object stream whose length is an object within itself."""
    inner = b"5 0 8 9 << /A 1 >> 100"
    body = b"<</Type/ObjStm/N 2/First 8/Length 8 0 R/Extends 4 0 R>>\nstream\n%b\nendstream" % inner
    kids = b"<</Type/Page/Parent 2 0 R/MediaBox%b/Contents 4 0 R>>" % A4
    return tree(b"3 0 R", 1, kids, body)


def truncated(data: bytes, part: float = 0.5) -> bytes:
    return data[: int(len(data) * part)]


def flipped(data: bytes, seed: int, share: float = 0.01) -> bytes:
    """`data` with a share of its bits turned over."""
    rng = random.Random(seed)
    out = bytearray(data)
    for _ in range(max(1, int(len(out) * share))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def picture(kind: str, size: tuple[int, int] = (64, 48), mode: str = "RGB", **options: object) -> bytes:
    held = io.BytesIO()
    Image.new(mode, size).save(held, kind, **options)  # type: ignore[arg-type]
    return held.getvalue()


def png_bomb(side: int) -> bytes:
    """A PNG of side x side grey pixels, some kilobytes large; made without the pixels in memory."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = deflated(bytes(side + 1), side)
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def tiff_loop() -> bytes:
    """A TIFF whose only directory names itself as the next."""
    fields = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 64)]
    entries = b"".join(struct.pack("<HHII", *field) for field in fields)
    directory = struct.pack("<H", len(fields)) + entries + struct.pack("<I", 72)
    return b"II*\0" + struct.pack("<I", 72) + bytes(64) + directory


PAGE = "page"
_MAKERS: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "laughs.pdf": (billion_laughs, ("timeout",)),
    "tiling.pdf": (tiling, ("timeout",)),
    "self-form.pdf": (self_reference, (PAGE, "timeout")),
    "content-bomb.pdf": (content_bomb, ("timeout", "oom", "crash")),
    "transparency.pdf": (transparency, (PAGE, "timeout")),
    "groups.pdf": (nested_groups, (PAGE, "timeout")),
    "image-40k.pdf": (lambda: image_bomb(40_000), ("timeout", "oom", "crash", PAGE)),
    "image-20k-grey.pdf": (lambda: image_bomb(20_000, 1), ("timeout", "oom", "crash", PAGE)),
    "lines.pdf": (lines, (PAGE, "timeout")),
    "dash.pdf": (dash, (PAGE, "timeout", "oom", "damaged")),
    "function.pdf": (shading_function, (PAGE, "timeout", "damaged")),
    "arrays.pdf": (nested_arrays, (PAGE, "damaged", "empty")),
    "box-1e6.pdf": (lambda: page(b"0 g", box=b"[0 0 1000000 1000000]"), (PAGE,)),
    "box-1e9.pdf": (lambda: page(b"0 g", box=b"[0 0 1e9 1000000000]"), (PAGE, "damaged", "oversize")),
    "box-nan.pdf": (lambda: page(b"0 g", box=b"[0 0 nan inf]"), (PAGE, "damaged", "oversize")),
    "box-zero.pdf": (lambda: page(b"0 g", box=b"[0 0 0 0]"), (PAGE, "damaged")),
    "sliver.pdf": (lambda: page(b"0 g", box=b"[0 0 1 3000000]"), ("oversize",)),
    "count-lie.pdf": (lambda: tree(b"3 0 R", 2_000_000_000, b"<</Type/Page/MediaBox[0 0 9 9]>>"), (PAGE, "damaged")),
    "count-minus.pdf": (lambda: tree(b"3 0 R", -1, b"<</Type/Page/MediaBox[0 0 9 9]>>"), (PAGE, "damaged", "empty")),
    "no-pages.pdf": (lambda: tree(b"", 0), ("empty", "damaged")),
    "tree-loop.pdf": (lambda: tree(b"2 0 R 2 0 R", 2), ("damaged", "empty")),
    "tree-deep.pdf": (deep_tree, (PAGE, "damaged", "empty", "timeout", "crash")),
    "kids.pdf": (many_kids, (PAGE, "damaged")),
    "xref-loop.pdf": (xref_loop, (PAGE, "damaged")),
    "objstm-loop.pdf": (object_stream_loop, (PAGE, "damaged", "empty")),
    "truncated.pdf": (lambda: truncated(good()), (PAGE, "damaged", "empty")),
    "header.pdf": (lambda: b"%PDF-1.7\n", ("damaged",)),
    "text.pdf": (lambda: b"<html>404 Not Found</html>\n" * 50, ("damaged",)),
    "zeros.pdf": (lambda: bytes(65_536), ("damaged",)),
    "empty.pdf": (lambda: b"", ("empty",)),
    "junk-before.pdf": (lambda: b"junk\r\n" * 100 + good(), (PAGE,)),
    **{f"flip-{seed}.pdf": (lambda seed=seed: flipped(good(), seed), (PAGE, "damaged", "empty")) for seed in range(8)},
    "bomb-12k.png": (lambda: png_bomb(12_000), ("oversize",)),
    "bomb-9k.png": (lambda: png_bomb(9_000), (PAGE,)),
    "truncated.png": (lambda: truncated(picture("png", (900, 900))), ("damaged",)),
    "truncated.jpg": (lambda: truncated(picture("jpeg", (900, 900))), ("damaged",)),
    "header.jpg": (lambda: b"\xff\xd8\xff\xe0\0\x10JFIF\0", ("damaged",)),
    "loop.tiff": (tiff_loop, (PAGE, "damaged")),
    "header.tiff": (lambda: b"II*\0\xff\xff\xff\xff", ("damaged",)),
    "header.webp": (lambda: b"RIFF\x10\0\0\0WEBPVP8X", ("damaged",)),
    "truncated.webp": (lambda: truncated(picture("webp", (900, 900))), ("damaged",)),
    "sliver.png": (lambda: picture("png", (4000, 3)), ("oversize",)),
    "gif.png": (lambda: picture("gif"), ("unsupported",)),
    "script.jpg": (lambda: b"#!/bin/sh\nrm -rf /\n", ("unsupported",)),
}
OUTCOMES = {name: outcomes for name, (_, outcomes) in _MAKERS.items()}


def files(names: Sequence[str] = ()) -> dict[str, bytes]:
    """name -> bytes, all or those of `names`."""
    return {name: _MAKERS[name][0]() for name in names or _MAKERS}
