"""Pairs of pictures and captions and of sentences: every published form is read, every figure is what it says."""

import json

import numpy as np
import pytest
import sets
from scipy.stats import spearmanr

from index.errors import OctavoError
from retriever import load_encoder
from retriever.cli import main
from retriever.evaluation.alignment import found, found_back, measure_captions, measure_sentences, spearman
from retriever.evaluation.pairs import Caption, Captioned, captioned, sentences

NAMES = list(sets.PAGES)


@pytest.fixture
def folder(tmp_path):
    for name, text in sets.PAGES.items():
        (tmp_path / f"{name}.png").write_bytes(sets.picture(text))
    return tmp_path


def test_spearman_is_scipy_s_with_ties():
    rng = np.random.default_rng(0)
    for n in range(2, 40):
        one, two = rng.integers(0, 5, n).astype(float), rng.random(n).round(1)
        if len(set(one)) > 1 and len(set(two)) > 1:
            assert spearman(one, two) == pytest.approx(spearmanr(one, two).statistic)
    assert spearman([1, 1, 1], [1, 2, 3]) == 0.0


def test_recall_both_ways_worked_out_by_hand():
    owners = np.array([0, 0, 1, 2])  # texts 0 and 1 are of picture 0; picture 3 has none
    scores = np.array([[0.9, 0, 0, 1.0], [0.1, 0.2, 0.3, 0.4], [0, 1.0, 0, 0], [0.5, 0.9, 0.8, 0]])
    assert found(scores, owners, k=1) == 1 / 4
    assert found(scores, owners, k=2) == 3 / 4
    assert found_back(scores, owners, k=1) == 1.0
    assert found_back(scores[:, ::-1], np.array([3, 3, 1, 3]), k=1) == 1 / 2


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("captions.txt", 'image,caption\nharbour.png,Ships in a harbour\nforest.png,"Trees, many"\n'),
        (
            "results.csv",
            "image_name| comment_number| comment\nharbour.png| 0| Ships in a harbour\nforest.png| 0| Trees, many\n",
        ),
        ("captions.tsv", "filename\tcaption\nharbour.png\tShips in a harbour\nforest.png\tTrees, many\n"),
        (
            "captions.jsonl",
            '{"file_name": "harbour.png", "text": ["Ships in a harbour"]}\n'
            '{"file_name": "forest.png", "text": "Trees, many"}\n',
        ),
        (
            "dataset_flickr30k.json",
            '{"images": [{"filename": "harbour.png", "split": "test", "sentences": [{"raw": "Ships in a harbour"}]},'
            '{"filename": "forest.png", "split": "test", "sentences": [{"raw": "Trees, many"}]},'
            '{"filename": "bakery.png", "split": "train", "sentences": [{"raw": "Bread"}]}]}',
        ),
        (
            "captions_val2014.json",
            '{"images": [{"id": 7, "file_name": "harbour.png"}, {"id": 9, "file_name": "forest.png"}],'
            '"annotations": [{"id": 1, "image_id": 7, "caption": "Ships in a harbour"},'
            '{"id": 2, "image_id": 9, "caption": "Trees, many "}]}',
        ),
    ],
)
def test_captions_as_flickr_coco_and_others_write_them(folder, file, text):
    (folder / file).write_text(text)
    loaded = captioned(folder)
    assert loaded.captions == [Caption("Ships in a harbour", "harbour.png"), Caption("Trees, many", "forest.png")]
    assert {name: path.name for name, path in loaded.images.items()} == {n: n for n in ("harbour.png", "forest.png")}


def test_captions_in_many_languages_as_xm3600_and_xtd10_write_them(folder):
    row = {
        "image/key": "harbour",
        "image/locale": "en",
        "en": {"caption": ["Ships", "A port"]},
        "de": {"caption": ["Hafen"]},
    }
    (folder / "captions.jsonl").write_text(json.dumps(row) + "\n")
    many = [("Ships", "en"), ("A port", "en"), ("Hafen", "de")]
    assert captioned(folder).captions == [Caption(text, "harbour.png", lang) for text, lang in many]
    (folder / "captions.jsonl").unlink()
    (folder / "test_image_names.txt").write_text("harbour.png\nforest.png\n")
    (folder / "test_1kcaptions_it.txt").write_text("Navi\nAlberi\n")
    assert captioned(folder).captions == [Caption("Navi", "harbour.png", "it"), Caption("Alberi", "forest.png", "it")]


def test_captions_in_the_hub_s_tables(tmp_path):
    columns = {
        "image": sets.images(),
        "caption": [[f"{text} (1)", f"{text} (2)"] for text in sets.PAGES.values()],
        "sentids": [["0", "1"]] * 4,
        "split": ["test"] * 4,
        "img_id": ["0", "1", "2", "3"],
        "filename": [f"{name}.jpg" for name in NAMES],
    }
    sets.parquet(tmp_path / "data" / "TEST-00000-of-00001.parquet", columns)
    loaded = captioned(tmp_path)
    assert len(loaded.captions) == 8 and loaded.captions[1] == Caption(f"{sets.PAGES['harbour']} (2)", "harbour.jpg")
    assert loaded.images["forest.jpg"]["bytes"] == sets.images()[1]["bytes"]


def test_other_folders_are_not_taken_for_captions(tmp_path, folder):
    assert captioned(folder) is None
    assert captioned(sets.plain(tmp_path / "mine")) is None
    assert captioned(sets.beir(tmp_path / "beir")) is None
    (folder / "captions.txt").write_text("image,caption\nlost.png,Nothing\n")
    with pytest.raises(OctavoError, match=r"lost.png, but no such picture"):
        captioned(folder)


def test_pictures_of_print_meet_their_words():
    pictures = dict(zip(NAMES, sets.images(), strict=True))
    captions = [Caption(text, name) for name, text in sets.PAGES.items()]
    rows = measure_captions(Captioned("print", pictures, captions), load_encoder(), lambda *_: None)
    values = {row["main_score"]: row["value"] for row in rows}
    assert values["text to image recall@5"] == values["image to text recall@5"] == 1.0
    assert values["mean cosine, matching pairs"] > values["mean cosine, other pairs"] + 0.05
    assert rows[0]["subsets"]["95 % low"] <= rows[0]["value"] <= rows[0]["subsets"]["95 % high"]
    assert [row["n"] for row in rows] == [4, 12, 4, 4]


def test_sentences_of_a_file_are_measured_by_the_command(tmp_path, capsys):
    rows = [
        ("A man is playing a guitar", "A man plays the guitar", 5.0),
        ("A dog runs in the park", "The dog is running in a park", 4.8),
        ("She cooks a soup", "A woman prepares dinner", 3.0),
        ("The market fell today", "A cat sleeps", 0.0),
    ]
    lines = ["genre\tsentence1\tsentence2\tscore", *(f"news\t{a}\t{b}\t{score}" for a, b, score in rows)]
    (tmp_path / "sts.tsv").write_text("\n".join(lines) + "\n")
    pairs = sentences(tmp_path / "sts.tsv")
    assert pairs.scores == [5.0, 4.8, 3.0, 0.0] and pairs.two[0] == "A man plays the guitar"
    (row,) = measure_sentences(pairs, load_encoder(), lambda *_: None)
    assert row["value"] >= 0.8
    assert main(["eval", str(tmp_path / "sts.tsv"), "--report", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"] == [row]
    assert "cosine spearman" in (tmp_path / "out" / "report.html").read_text()
    (tmp_path / "sts.csv").write_text("sentence1,sentence2,score\na,b,high\n")
    with pytest.raises(OctavoError, match="row 1: 'high' is no score"):
        sentences(tmp_path / "sts.csv")
    (tmp_path / "other.csv").write_text("x,y\n1,2\n")
    assert main(["eval", str(tmp_path / "other.csv")]) == 3
    assert "sentence1, sentence2 and score" in capsys.readouterr().err
