"""Build time only: passages of text in some sixty languages, out of Debian packages, to fit the projection on.

Prose as it comes: sky lore (stellarium-data), accounting (gnucash-docs), essays (anarchism), tales of units (wesnoth),
help pages (libreoffice-help-*), manual pages (manpages-*); so many passages a language of each, chosen by a seed.
None of the text ships, and none of it belongs to a question set. Debian 12; versions in NOTICE.
"""

from __future__ import annotations

import gettext
import gzip
import html
import io
import random
import re
import subprocess
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

LENGTH = 1200
_BLOCK = re.compile(r"<(p|dd|li)[ >].*?</\1>", re.S)
_TAG = re.compile(r"<[^>]+>")
_ROFF = re.compile(r"\\f.|\\[-&|^]|\\\(..|\\s[-+]?\d|\\e")
_SOURCES = {
    "stellarium-data": (re.compile(r"skycultures/.*/description\.(.+)\.utf8$"), 14),
    "gnucash-docs": (re.compile(r"(gnucash-guide-..)/.*\.html$"), 30),
    "anarchism": (re.compile(r"(html)/.*\.html$"), 80),
    "wesnoth-1.16-data": (re.compile(r"translations/([^/]+)/LC_MESSAGES/wesnoth-(?:units|help)\.mo$"), 6),
    "libreoffice-help": (re.compile(r"help/([^/]+)/text/.*\.html$"), 12),
    "manpages": (re.compile(r"/man/(.*)man\d/.*\.gz$"), 5),
}
FILES = 60
MOST = 400


class Text(NamedTuple):
    """Passages of one language ("de") of one source ("gnucash-docs")."""

    source: str
    language: str
    passages: list[str]


def read(packages: list[Path], seed: int = 0) -> list[Text]:
    """At most MOST passages of about LENGTH characters of each language of each .deb of `packages`; needs dpkg-deb."""
    texts = []
    for package in sorted(packages):
        source = next((name for name in _SOURCES if package.name.startswith(name)), None)
        if source is not None:
            for found, paragraphs in _languages(package, _SOURCES[source][0], random.Random(seed)):
                language = re.match(r"(?:gnucash-guide-)?([a-z]{2,3})(?![a-z])", found)
                passages = _passages(paragraphs)[:MOST]
                texts.append(Text(source, language[1] if language else "en", passages))
    return texts


def sample(texts: list[Text], seed: int = 0) -> list[str]:
    """The passages to fit the projection on: so many of each text as its source gives, in a fixed order."""
    chosen = []
    for source, _, passages in texts:
        chosen += random.Random(seed).sample(passages, min(_SOURCES[source][1], len(passages)))
    return chosen


def _languages(package: Path, pattern: re.Pattern[str], chance: random.Random) -> list[tuple[str, list[str]]]:
    """(language as the path names it, paragraphs of at most FILES of its files, in order) for a package."""
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members: dict[str, list[tarfile.TarInfo]] = defaultdict(list)
        for member in sorted((m for m in archive if m.isfile()), key=lambda m: m.name):
            match = pattern.search(member.name)
            if match:
                members[match[1]].append(member)
        found = []
        for language in sorted(members):
            paragraphs: list[str] = []
            for member in chance.sample(members[language], min(FILES, len(members[language]))):
                stream = archive.extractfile(member)
                paragraphs += _paragraphs(member.name, stream.read() if stream else b"")
            found.append((language, paragraphs))
        return found


def _paragraphs(name: str, raw: bytes) -> list[str]:
    if name.endswith(".mo"):
        catalog = gettext.GNUTranslations(io.BytesIO(raw))
        blocks = sorted(str(text) for text in vars(catalog)["_catalog"].values())
    elif name.endswith(".gz"):
        lines = gzip.decompress(raw).decode("utf-8", "replace").splitlines()
        bare = ["" if line.startswith((".", "'")) else _ROFF.sub("", line) for line in lines]
        blocks = re.split(r"\n\s*\n", "\n".join(bare))
    else:
        blocks = [html.unescape(_TAG.sub("", m[0])) for m in _BLOCK.finditer(raw.decode("utf-8", "replace"))]
    texts = [" ".join(block.split()) for block in blocks]
    return [text for text in texts if len(text) >= 60 and "\ufffd" not in text]


def _passages(paragraphs: list[str]) -> list[str]:
    """Paragraphs joined in order until LENGTH, cut there."""
    passages, held = [], ""
    for paragraph in dict.fromkeys(paragraphs):
        held = f"{held} {paragraph}".strip()
        if len(held) >= LENGTH:
            passages.append(held[:LENGTH])
            held = ""
    return [*passages, held] if len(held) > LENGTH // 3 else passages
