"""The training of the recogniser's second head: its characters, its texts, its scout, and its head from the file."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from retriever.encoders.box.states import session
from retriever.encoders.box.weights import FOLDER
from retriever.training.reader import classes, lines

torch = pytest.importorskip("torch")
KNOWN = classes.former(json.loads((FOLDER / "characters.json").read_text("utf-8")))


def test_the_old_characters_are_those_before_the_space() -> None:
    assert classes.former(["a", "b", " ", "ă"]) == ["a", "b"] == classes.former(["a", "b"])
    assert len(KNOWN) == 6904


def test_each_new_class_is_of_one_kind() -> None:
    new = classes.added(KNOWN)
    groups = classes.groups(new)
    assert sorted(i for group in groups.values() for i in group) == list(range(len(new)))
    kinds = {new[i]: kind for kind, group in groups.items() for i in group if kind != "marked"}
    assert [kinds[c] for c in "ửțıжλあ가"] == ["latin", "latin", "latin", "cyrillic", "cyrillic", "eastern", "eastern"]
    assert [new[i] for i in groups["marked"]] == list(classes.MARKED)


def test_syllables_are_exchanged_for_such_as_are_read() -> None:
    chance = random.Random(0)
    found = {lines._syllable("한", chance) for _ in range(300)}
    assert found <= set(classes.HANGUL) and {"함", "안", "헌"} & found and len(found) > 20
    assert lines._syllable("a", chance) == "a"


GETTEXT = pytest.mark.skipif(not (shutil.which("dpkg-deb") and shutil.which("msgfmt")), reason="no dpkg-deb, gettext")


def packed(folder: Path, name: str, within: str, told: str) -> Path:
    """A .deb of that name in `folder` with one message, `told`, in a .mo in its folder `within`."""
    (folder / name / "DEBIAN").mkdir(parents=True)
    (folder / name / "DEBIAN" / "control").write_text("Package: a\nVersion: 1\nArchitecture: all\nMaintainer: a\n")
    (folder / name / within).mkdir(parents=True)
    head = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n'
    (folder / "a.po").write_text(head + f'msgid "a"\nmsgstr "{told}"\n', "utf-8")
    subprocess.run(["msgfmt", "-o", folder / name / within / "a.mo", folder / "a.po"], check=True)
    package = folder / f"{name}_1_all.deb"
    subprocess.run(["dpkg-deb", "-b", folder / name, package], check=True, capture_output=True)
    return package


@GETTEXT
def test_messages_of_a_package_are_read(tmp_path: Path) -> None:
    packed(tmp_path, "libreoffice-l10n-ro", "usr", "~Salvează fișierul %1 acum")
    assert lines.texts_of(tmp_path, "ro") == ["Salvează fișierul acum"]
    with pytest.raises(FileNotFoundError, match="libreoffice-help-vi"):
        lines.texts_of(tmp_path, "vi")


@GETTEXT
def test_korean_messages_of_games_are_read_too_without_markup(tmp_path: Path) -> None:
    locale = "usr/share/locale/{}/LC_MESSAGES"
    markup = "<color_red>%s</color>의 낡은 망토를 %2$d번 {0}꿰매어 입었다."
    game = packed(tmp_path, "widelands-data", locale.format("ko"), markup)
    assert lines.told(game) == ["의 낡은 망토를 번 꿰매어 입었다."]
    assert lines.told(game, "ja") == []
    packed(tmp_path, "libreoffice-l10n-ko", "usr", "모든 파일을 저장합니다")
    assert lines.texts_of(tmp_path, "ko") == ["모든 파일을 저장합니다", *lines.told(game)]


def test_the_scout_foretells_which_classes_could_win(monkeypatch: pytest.MonkeyPatch) -> None:
    from retriever.training.reader import scout

    known = [*"abcdefgh", *"一二三四五六七八"]
    draw = np.random.default_rng(0)
    weights = torch.from_numpy(draw.normal(0, 1, (80, len(known) + 2)).astype(np.float32))
    old = (weights, torch.zeros(len(known) + 2))
    narrow = draw.normal(0, 0.3, (20_000, 80)).astype(np.float32)
    logits = narrow[:9] @ weights.numpy()
    close, far = [0, *range(1, 9), 17], [*range(9, 17)]
    assert scout.near(known) == close
    found = scout.ahead(old, known, torch.from_numpy(narrow[:9])).numpy()
    np.testing.assert_allclose(found, logits[:, far].max(1) - logits[:, close].max(1), rtol=1e-3, atol=1e-3)
    monkeypatch.setattr(scout, "_STEPS", 400)
    fitted = scout.fit(old, known, narrow)
    with torch.no_grad():
        told = fitted(torch.from_numpy(narrow)).numpy()
    ahead = scout.ahead(old, known, torch.from_numpy(narrow)).numpy()
    assert 0.93 < (told >= ahead).mean() < 0.995  # on the high side: the quantile .97
    assert np.corrcoef(told, ahead)[0, 1] > 0.5


def test_the_second_head_is_restored_from_the_file() -> None:
    pytest.importorskip("onnx")
    from retriever.training.reader import graph, neck, scout

    model = (FOLDER / "recogniser.onnx").read_bytes()
    new = classes.added(KNOWN)
    net = neck.restored(model, new)
    again = neck.weights_of(graph.grown(model, net, scout.Scout(), KNOWN, new))
    before = neck.weights_of(model)
    trained = {"join", "context", "mix", "near", "deep", "strokes", "across", "whole", "letters", "eastern"}
    names = [
        name for name in before if name.split(".")[0] in trained and not name.endswith(("numbers", "sizes", "sure"))
    ]
    assert len(names) == 20
    for name in names:
        np.testing.assert_allclose(again[name], before[name], atol=2e-3)


def test_round_apostrophes_are_told_by_one_output_more() -> None:
    pytest.importorskip("onnx")
    from retriever.training.reader import marks

    chance = np.random.default_rng(0)
    narrow, own = chance.normal(size=(400, 80)), chance.normal(size=80)
    weights, bias = marks.fit(narrow, narrow @ own > 0.5)
    assert ((narrow @ weights + bias > 0) == (narrow @ own > 0.5)).mean() > 0.97
    model = (FOLDER / "recogniser.onnx").read_bytes()
    x = chance.normal(size=(1, 3, 48, 160)).astype(np.float32)
    *before, _ = session(model, 1).run(None, {"x": x})
    *after, curly = session(marks.told(model, np.zeros(80), 2.5), 1).run(None, {"x": x})
    assert (curly == 2.5).all() and curly.shape == before[0].shape
    for was, now in zip(before, after, strict=True):
        np.testing.assert_array_equal(was, now)
