"""The encoder in the box: its vectors against the reference, its boxes, what it promises of queries and batches."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ingest.page import Encoder, Page, Words
from retriever.encoders import load_encoder
from retriever.encoders.box import LEAST_WEIGHT, MOST_TOKENS, PASSAGE, QUERY, BoxEncoder, leaders, piece_boxes
from retriever.encoders.box.build_rows import coarse
from retriever.encoders.box.initialisers import initialisers
from retriever.encoders.box.passages import LEVELS, given
from retriever.encoders.box.pieces import Piece
from retriever.encoders.box.states import OVERLAP, WINDOW, Table, dequantise, dequantise_coarse, spans
from retriever.encoders.box.weights import FOLDER, WeightsError

DATA = Path(__file__).parent / "data"
WHITE = np.full((1650, 1275, 3), 255, np.uint8)


@pytest.fixture(scope="module")
def encoder() -> BoxEncoder:
    return BoxEncoder(threads=1)


def page(text: str, image: np.ndarray = WHITE) -> Page:
    """A page whose layer holds `text`, its words on lines of ten."""
    words = text.split()
    x, y = np.arange(len(words)) % 10 / 10, np.arange(len(words)) // 10 / 200 % 1
    boxes = np.stack([x, y, x + 0.09, y + 0.004], axis=1).astype(np.float32)
    return Page(1, image, Words(words, boxes), 612, 792)


def test_it_is_the_default_encoder_and_fits_the_seam() -> None:
    encoder = load_encoder()
    assert isinstance(encoder, BoxEncoder) and isinstance(encoder, Encoder)
    assert (encoder.name, encoder.dim, encoder.single_dim) == ("octavo-box-1", 128, None)
    assert encoder.render == (150, 4_000_000)


GOLDEN = json.loads((DATA / "box_golden.json").read_text("utf-8"))["texts"]


@pytest.mark.parametrize("language", GOLDEN)
def test_no_language_is_cut_too_far(encoder: BoxEncoder, language: str) -> None:
    """Golden: read_e5.py (torch, fp32, all pieces, all their rows in 4 bits) on a sentence in each language.

    A piece left out of the table spells its word otherwise, and rows stored too coarsely turn the states.
    """
    text, expected = GOLDEN[language]["text"], np.load(DATA / "box_golden.npz")[language].astype(np.float32)
    pieces = [piece for word in text.split() for piece in encoder._pieces.word(word)]
    assert [encoder._pieces.texts[piece.id] for piece in pieces] == GOLDEN[language]["pieces"]
    found = encoder.states(text)
    cosine = (expected * found).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(found, axis=1)
    assert cosine.mean() > 0.985 and cosine.min() > 0.92


def test_a_page_has_unit_vectors_and_a_box_a_piece(encoder: BoxEncoder) -> None:
    (tokens,) = encoder.encode_pages([page("Net revenue grew in 2023")])
    pieces = [piece for word in ["Net", "revenue", "grew", "in", "2023"] for piece in encoder._pieces.word(word)]
    assert tokens.words is None and tokens.single is None
    assert tokens.vectors.shape == (len(pieces), 128) and tokens.boxes.shape == (len(pieces), 4)
    assert tokens.vectors.dtype == tokens.boxes.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(tokens.vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(tokens.boxes[0], [0, 0, 0.09, 0.004], atol=1e-6)
    np.testing.assert_allclose(tokens.boxes[-1], [0.4, 0, 0.49, 0.004], atol=1e-6)


def test_rows_of_dots_take_no_room_in_a_window(encoder: BoxEncoder) -> None:
    heads = ["1.1 Harbour dues", "1.2 Ice in winter ... and later", "1.3 Who may sign _ here"]
    between = (" ", f" {'. ' * 40}", " ......... ")
    plain, *dotted = encoder.encode_pages([page(" ".join(f"{head}{dots}7" for head in heads)) for dots in between])
    for tokens in dotted:
        np.testing.assert_array_equal(tokens.vectors, plain.vectors)
    words = ["a", ".", ".", "b", "...", "_", "c", "____", "d", "...", "e", "."]
    assert np.flatnonzero(leaders(words)).tolist() == [1, 2, 4, 5, 7]


def test_a_page_does_not_depend_on_what_shares_its_batch(encoder: BoxEncoder) -> None:
    pages = [page("Dividends and buybacks " * n) for n in (1, 90, 400)] + [page("")]
    together = encoder.encode_pages(pages)
    for one, tokens in zip(pages, together, strict=True):
        alone = encoder.encode_pages([one])[0]
        np.testing.assert_allclose(alone.vectors, tokens.vectors, atol=1e-5)
        np.testing.assert_array_equal(alone.boxes, tokens.boxes)


def test_an_empty_page_has_no_tokens(encoder: BoxEncoder) -> None:
    for image in (WHITE, np.zeros((1, 1, 3), np.uint8), np.zeros((3, 900, 3), np.uint8)):
        (tokens,) = encoder.encode_pages([Page(1, image, Words(), 612, 792)])
        assert tokens.vectors.shape == (0, 128) and tokens.boxes.shape == (0, 4)
        assert tokens.words is None or len(tokens.words) == 0


def test_a_page_stops_at_the_most_tokens(encoder: BoxEncoder) -> None:
    (tokens,) = encoder.encode_pages([page("one two three " * 2000)])
    assert len(tokens.vectors) == MOST_TOKENS
    assert np.isfinite(tokens.vectors).all() and len(tokens.boxes) == len(tokens.vectors)


def test_odd_text_stays_finite(encoder: BoxEncoder) -> None:
    text = "\x00 \ufffd (cid:3) \U0001f600 สว\u0e31สด\u0e35 " + "a" * 5000 + " </s> \u200b \U000e0041 x"
    (tokens,) = encoder.encode_pages([page(text + " and some plain words beside")])
    assert len(tokens.vectors) > 5000 / 16
    assert np.isfinite(tokens.vectors).all()


def test_a_query_weighs_rare_pieces_more_with_mean_one(encoder: BoxEncoder) -> None:
    (query,) = encoder.encode_queries(["the photovoltaic of the"])
    weights = np.linalg.norm(query, axis=1)
    (names,) = encoder.query_tokens(["the photovoltaic of the"])
    assert len(names) == len(query) and "".join(names) == "thephotovoltaicofthe"
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    assert weights[1:-2].min() > weights[0] > 0
    pieces = encoder._query_pieces("the photovoltaic of the")
    ids = np.array([piece.id for piece in pieces])
    states = encoder._states.of(encoder._prompts[QUERY], ids)
    along = states @ encoder._stress / np.linalg.norm(states, axis=1)
    assert 0.01 < np.ptp(along) < 2, "the head has a say in it, but rarity has more"
    expected = np.maximum(-encoder._pieces.scores[ids], LEAST_WEIGHT) * np.exp(along)
    np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-4)


def test_a_question_finds_its_passage_across_languages(encoder: BoxEncoder) -> None:
    passages = ["The glacier lost two metres of ice in a year", "Revenue of the bakery rose by nine per cent",
                "The violinist tuned her instrument before the concert"]  # fmt: skip
    pages = [tokens.vectors for tokens in encoder.encode_pages([page(text) for text in passages])]
    queries = ["Gletscher verliert Eis", "le chiffre d'affaires de la boulangerie", "concierto de violín"]
    for i, query in enumerate(encoder.encode_queries(queries)):
        assert np.argmax([(query @ vectors.T).max(1).sum() for vectors in pages]) == i


@pytest.mark.parametrize("text", ["", "  \n\t ", "\u200b", "\x07"])
def test_a_query_without_tokens_is_an_error(encoder: BoxEncoder, text: str) -> None:
    with pytest.raises(ValueError, match="holds no tokens"):
        encoder.encode_queries([text])
    with pytest.raises(ValueError, match="holds no tokens"):
        encoder.query_tokens([text])


def test_a_query_too_long_is_an_error_not_cut(encoder: BoxEncoder) -> None:
    assert len(encoder.encode_queries(["word " * 500])[0]) == 500
    with pytest.raises(ValueError, match=r"700 pieces, at most 50\d fit; shorten"):
        encoder.encode_queries(["word " * 700])


def test_pieces_of_unspaced_scripts_lie_along_their_run() -> None:
    box = np.array([0.2, 0.4, 0.6, 0.5], np.float32)
    pieces = [Piece(9, "日本", 0, 0.5), Piece(10, "の首", 0.5, 1)]
    across = piece_boxes("日本の首", pieces, box)
    np.testing.assert_allclose(across, [[0.2, 0.4, 0.4, 0.5], [0.4, 0.4, 0.6, 0.5]], atol=1e-6)
    down = piece_boxes("日本の首", pieces, box[[1, 0, 3, 2]])
    np.testing.assert_allclose(down, [[0.4, 0.2, 0.5, 0.4], [0.4, 0.4, 0.5, 0.6]], atol=1e-6)
    spaced = piece_boxes("abcd", [Piece(9, "ab", 0, 0.5), Piece(10, "cd", 0.5, 1)], box)
    np.testing.assert_array_equal(spaced, [box, box])


def test_windows_cover_all_pieces_with_overlap() -> None:
    assert spans(1) == [(0, 1)] and spans(WINDOW) == [(0, WINDOW)]
    for n in (WINDOW + 1, WINDOW + 5, 900, 901, 1999, 4096):
        windows = spans(n)
        assert windows[0][0] == 0 and windows[-1][1] == n
        assert max(end - start for start, end in windows) <= WINDOW
        assert min(a[1] - b[0] for a, b in zip(windows, windows[1:], strict=False)) >= OVERLAP - 1


def test_a_page_is_read_in_windows_and_a_query_in_one(encoder: BoxEncoder) -> None:
    text = " ".join(f"word{k} stands here" for k in range(60))
    alone, before = encoder.states(text), encoder.states("Annual report of the harbour. " * 40 + text)
    likeness = (alone[-20:] * before[-20:]).sum(1) / np.linalg.norm(alone[-20:], axis=1)
    assert (likeness / np.linalg.norm(before[-20:], axis=1)).min() > 0.9  # far words are not seen, near ones are alike
    (long,), (other,) = encoder.encode_queries([text]), encoder.encode_queries([text[: -len("here")] + "there"])
    assert len(long) == len(other) > WINDOW
    assert not np.array_equal(long[:20], other[:20])  # its first words know its last


def test_rows_are_dequantised_as_the_format_says() -> None:
    row = np.zeros((1, 1, 18), np.uint8)
    row[0, 0, :2] = np.frombuffer(np.float16(0.5).tobytes(), np.uint8)
    row[0, 0, 2:] = 0x88
    row[0, 0, 2] = 0x3F
    values = dequantise(row)[0]
    assert values[0] == 3.5 and values[16] == -2.5 and np.count_nonzero(values) == 2


def test_coarse_rows_are_read_back_as_near_as_two_bits_can() -> None:
    """Four levels leave .1175 of a normal distribution's variance (Max 1960)."""
    mean = np.linspace(-0.1, 0.1, 384).astype(np.float32)
    rows = (np.random.default_rng(0).normal(size=(3000, 384)) * 0.08).astype(np.float32) + mean
    found = dequantise_coarse(coarse(rows, mean), mean)
    assert found.shape == (3000, 384) and found.dtype == np.float32
    assert ((found - rows) ** 2).sum() / ((rows - mean) ** 2).sum() == pytest.approx(0.1175, abs=0.003)
    assert len(np.unique((found[0] - mean).round(4))) == 4


def test_a_table_gives_common_and_rare_rows_in_the_order_asked() -> None:
    common = np.zeros((2, 12, 18), np.uint8)
    common[..., :2] = np.frombuffer(np.float16(1).tobytes(), np.uint8)
    common[0, :, 2:], common[1, :, 2:] = 0x99, 0x77
    rare, mean = np.zeros((2, 98), np.uint8), np.full(384, 0.25, np.float32)
    rare[:, :2] = np.frombuffer(np.float16(2).tobytes(), np.uint8)
    rare[0, 2], rare[1, 2:] = 0b11_10_01_00, 0xFF
    rows = Table({"rows.common": common, "rows.rare": rare, "rows.mean": mean}).rows(np.array([3, 1, 0, 2, 3]))
    np.testing.assert_allclose(rows[[0, 1, 2, 4], 7], [3.27, -1, 1, 3.27], rtol=1e-6)
    np.testing.assert_allclose(rows[3, [0, 96, 192, 288, 1]], [-2.77, -0.6556, 1.1556, 3.27, -2.77], rtol=1e-6)


def test_the_fingerprint_names_what_changes_a_vector(encoder: BoxEncoder) -> None:
    assert json.loads(json.dumps(encoder.fingerprint)) == encoder.fingerprint
    assert encoder.fingerprint["name"] == "octavo-box-1" and encoder.fingerprint["dpi"] == 150
    assert all(len(digest) == 64 for digest in encoder.fingerprint["weights"].values())


def test_pages_are_read_in_8_bits_near_to_what_they_are(encoder: BoxEncoder) -> None:
    ice, bread = (
        "The glacier lost two metres of ice in a year, 1,204 of them in August.",
        "Der Umsatz der Bäckerei stieg",
    )
    texts = [ice, bread, "京都大学の研究者は新しい橋を架けた", "x", "а" * 300] * 2
    ids = np.array([piece.id for text in texts for word in text.split() for piece in encoder._pieces.word(word)])
    exact, fast = (encoder._states.of(encoder._prompts[PASSAGE], ids, fast=fast) for fast in (False, True))
    cosines = (exact * fast).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(fast, axis=1)
    assert cosines.mean() > 0.995 and cosines.min() > 0.97 and not np.array_equal(exact, fast)
    np.testing.assert_array_equal(fast, encoder._states.of(encoder._prompts[PASSAGE], ids, fast=True))
    (tokens,) = encoder.encode_pages([page(" ".join(texts))])
    kept = [piece.says for text in texts for word in text.split() for piece in encoder._pieces.word(word)]
    expected = fast[kept] @ encoder._projection
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(tokens.vectors, expected, atol=1e-5)


def test_weights_of_8_bits_are_those_of_4_to_half_a_step(encoder: BoxEncoder) -> None:
    states, passages = (encoder._weights.read(name) for name in ("states.onnx", "passages.onnx"))
    stored, smooth, made = initialisers(states), initialisers(passages), given(states, passages)
    assert {name for name in smooth if name.endswith(".smooth")} == {
        f"l{layer}.{product}.smooth" for layer in range(12) for product in ("inner", "outer")
    }
    for name, (k, n) in {"l0.qkv": (384, 1152), "l11.outer": (1536, 384), "l3.inner": (384, 1536)}.items():
        codes, scales = stored[f"{name}.q"], stored[f"{name}.s.h"].astype(np.float64)
        weights = np.empty((n, k))
        for place in range(k):
            nibble = codes[:, place // 32, place % 32 // 2] >> 4 * (place % 2) & 15
            weights[:, place] = (nibble.astype(int) - 8) * scales[:, place // 32]
        weights /= smooth.get(f"{name}.smooth", np.ones(k))
        found, steps = made[f"{name}.w"], made[f"{name}.ws"]
        assert found.shape == (k, n) and found.dtype == np.int8 and np.abs(found).max() == LEVELS
        assert np.abs(found.T * steps[:, None].astype(np.float64) - weights).max(1) == pytest.approx(steps / 2, rel=0.2)


def test_a_model_file_is_read_as_onnx_reads_it(encoder: BoxEncoder) -> None:
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed; pip install octavo[weights]")
    states = encoder._weights.read("states.onnx")
    stored = initialisers(states)
    read = {value.name: onnx.numpy_helper.to_array(value) for value in onnx.load_from_string(states).graph.initializer}
    assert read.keys() == stored.keys()
    for name, values in read.items():
        np.testing.assert_array_equal(values, stored[name])


@pytest.mark.parametrize("name", ["pieces.safetensors", "projection.safetensors", "states.onnx", "detector.onnx"])
def test_damaged_weights_are_named(tmp_path: Path, name: str) -> None:
    for path in [*FOLDER.glob("*.onnx"), *FOLDER.glob("*.safetensors"), *FOLDER.glob("*.json")]:
        (tmp_path / path.name).symlink_to(path)
    data = bytearray((FOLDER / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WeightsError, match=rf"{name}: found sha256 .* expected .*reinstall"):
        _ = BoxEncoder(weights=tmp_path, threads=1).reader


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights\.json.*reinstall"):
        BoxEncoder(weights=tmp_path)
    shutil.copy(FOLDER / "weights.json", tmp_path)
    with pytest.raises(WeightsError, match=r"pieces\.safetensors is missing"):
        BoxEncoder(weights=tmp_path)


def test_all_weights_stay_under_50_megabytes() -> None:
    names = json.loads((FOLDER / "weights.json").read_text("utf-8"))["files"]
    assert sum((FOLDER / name).stat().st_size for name in names) < 50_000_000


def test_a_fresh_process_answers_soon_and_imports_no_torch() -> None:
    """One query and one OCR page; the time is a generous bound (0.3 s on an idle core)."""
    program = """
import sys, time
start = time.perf_counter()
from retriever.encoders import load_encoder
encoder = load_encoder()
encoder.encode_queries(["net revenue by region"])
seconds = time.perf_counter() - start
loaded = "_opened" in vars(encoder)
import numpy as np
from ingest.page import Page, Words
image = np.full((400, 400, 3), 255, np.uint8)
image[100:120, 50:300] = 0
encoder.encode_pages([Page(1, image, Words(), 192, 192)])
heavy = [name for name in ("torch", "transformers", "scipy", "cv2", "onnx") if name in sys.modules]
sys.stdout.write(repr((seconds, loaded, heavy)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seconds, loaded, heavy = eval(done.stdout)  # noqa: S307 - a literal printed above
    assert heavy == [] and loaded is False
    assert seconds < 5
