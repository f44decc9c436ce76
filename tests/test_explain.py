"""Token weights, heat, overlay and regions on pages small enough to work out by hand."""

import numpy as np
import pytest
from PIL import Image

from retriever import explain
from retriever.explain import regions
from retriever.hit import Evidence


def test_token_scores_add_up_to_maxsim_and_name_the_winners():
    vectors = np.array([[1, 0], [0, 2], [0, 2], [-1, 0]], np.float32)
    scores, winners = explain.token_scores([[0, 3], [-1, 0], [2, 0.5]], vectors)
    assert scores.tolist() == [6.0, 1.0, 2.0]
    assert winners.tolist() == [1, 3, 0]
    scores, winners = explain.token_scores(np.ones((2, 4)), np.zeros((0, 4)))
    assert scores.tolist() == [0.0, 0.0] and winners.tolist() == [-1, -1]


def test_the_matching_token_gets_all_the_weight():
    vectors = np.eye(8, dtype=np.float32)
    weights = explain.token_weights(np.eye(8, dtype=np.float32)[[5]], vectors)
    assert weights.dtype == np.float32
    assert np.array_equal(weights, np.eye(8)[5])


def test_a_heavier_query_token_paints_hotter():
    vectors = np.eye(8, dtype=np.float32)
    query = np.zeros((2, 8), np.float32)
    query[0, 1], query[1, 6] = 3.0, 1.5
    assert np.allclose(explain.token_weights(query, vectors), [0, 1, 0, 0, 0, 0, 0.5, 0], atol=1e-6)
    assert np.allclose(explain.token_weights(query, vectors, token=1), np.eye(8)[6], atol=1e-6)


def test_a_token_that_is_equally_like_everything_paints_next_to_nothing():
    vectors = np.concatenate([np.full((6, 1), 0.9), np.eye(6) * 0.4], axis=1).astype(np.float32)
    query = np.zeros((2, 7), np.float32)
    query[0, 0] = 1.0  # the same similarity to all six
    query[1, 3] = 1.0  # to the third alone
    weights = explain.token_weights(query[1:], vectors)
    assert np.array_equal(weights, np.eye(6)[2])
    assert explain.token_weights(query[:1], vectors).tolist() == [1.0] * 6


def test_near_winners_count_and_far_ones_do_not():
    angles = np.array([0.0, 0.1, *np.linspace(1.2, 1.5, 20)])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    weights = explain.token_weights([[1.0, 0.0]], vectors)
    assert weights[0] == 1 and weights[1] > 0.95 and weights[2:].max() < 0.01


def test_no_tokens_no_evidence_and_wrong_input():
    assert explain.token_weights(np.ones((2, 4)), np.zeros((0, 4))).shape == (0,)
    assert explain.token_weights([[-1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]).tolist() == [0.0, 0.0]
    assert explain.token_weights([[1.0, 0.0]], [[1.0, 0.0]]).tolist() == [1.0]
    with pytest.raises(ValueError, match="4 dimensions, the page's vectors 3"):
        explain.token_weights(np.ones((1, 4)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="token 2 of a query of 2"):
        explain.token_weights(np.ones((2, 3)), np.ones((2, 3)), token=2)


def test_heat_peaks_in_the_strongest_box_and_is_zero_far_away():
    boxes = [[0.1, 0.1, 0.3, 0.15], [0.6, 0.8, 0.9, 0.85]]
    heat = explain.heat(boxes, [0.5, 2.0], (200, 300))
    assert heat.shape == (300, 200) and heat.dtype == np.float32
    assert heat.max() == 1.0 and heat.min() == 0.0
    assert heat[248, 150] == pytest.approx(1.0, abs=0.02)
    assert heat[37, 40] == pytest.approx(0.25, abs=0.02)
    assert heat[150, 100] == 0


def test_overlapping_boxes_take_the_maximum_not_the_sum():
    heat = explain.heat([[0.2, 0.2, 0.8, 0.8]] * 3 + [[0, 0, 0.1, 0.1]], [0.5, 0.5, 0.5, 1.0], (100, 100))
    assert heat[50, 50] == pytest.approx(0.5, abs=0.05)


def test_neighbouring_patches_run_into_each_other():
    boxes = [[0, 0, 0.25, 0.25], [0.25, 0, 0.5, 0.25]]
    row = explain.heat(boxes, [1.0, 0.2], (400, 400))[40]
    assert np.all(np.diff(row[40:200]) <= 1e-6)
    assert 0.3 < row[100] < 0.9


def test_heat_of_a_large_page_keeps_its_size_and_of_nothing_is_zero():
    assert explain.heat([[0.5, 0.5, 0.6, 0.6]], [1], (2550, 3300)).shape == (3300, 2550)
    assert explain.heat([], [], (30, 40)).sum() == 0
    assert explain.heat([[0, 0, 1, 1]], [-1.0], (30, 40)).sum() == 0
    assert np.isfinite(explain.heat([[0, 0, 1, 1]], [np.nan], (1, 1))).all()
    with pytest.raises(ValueError, match="1 boxes and 2 weights"):
        explain.heat([[0, 0, 1, 1]], [1, 2], (3, 3))


def test_overlay_leaves_cold_pixels_alone_and_print_readable():
    page = np.full((60, 40, 3), 255, np.uint8)
    page[20:30] = 0  # print
    heat = np.zeros((60, 40), np.float32)
    heat[10:40] = 1.0
    result = np.asarray(explain.overlay(Image.fromarray(page), heat))
    assert np.array_equal(result[:10], page[:10]) and np.array_equal(result[40:], page[40:])
    light, dark = result[12, 5].astype(float).mean(), result[25, 5].astype(float).mean()
    assert light - dark > 120
    assert np.ptp(result[12, 5].astype(int)) > 60  # coloured, not grey
    assert np.array_equal(np.asarray(explain.overlay(Image.fromarray(page), heat, opacity=0)), page)


def test_overlay_takes_grey_pages_and_heat_of_another_size():
    result = explain.overlay(Image.new("L", (40, 60), 255), np.ones((6, 4), np.float32))
    assert result.size == (40, 60) and result.mode == "RGB"


def test_colours_are_viridis_and_grow_lighter():
    assert np.allclose(explain.colours([0.0, 0.5, 1.0]), [[68, 1, 84], [33, 145, 140], [253, 231, 37]])
    lightness = explain.colours(np.linspace(0, 1, 50)) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all()


def test_words_of_a_line_become_one_region_and_the_heaviest_comes_first():
    line = [[x, 0.1, x + 0.08, 0.12] for x in (0.1, 0.2, 0.3)]
    elsewhere = [[0.1, 0.5, 0.2, 0.52], [0.7, 0.1, 0.8, 0.12], [0.1, 0.124, 0.2, 0.144]]
    found = explain.regions(line + elsewhere, [0.5, 0.6, 0.5, 1.0, 0.2, 0.05], k=5)
    assert [np.round(box, 3).tolist() for box, _ in found] == [
        [0.1, 0.1, 0.38, 0.12],
        [0.1, 0.5, 0.2, 0.52],
        [0.7, 0.1, 0.8, 0.12],
    ]
    assert [round(w, 3) for _, w in found] == [1.0, 0.625, 0.125]
    assert len(explain.regions(line + elsewhere, [1] * 6, k=1)) == 1
    assert explain.regions([], []) == [] and explain.regions(line, [0, 0, 0]) == []


def test_tokens_of_a_prompt_lie_nowhere_and_light_nothing() -> None:
    vectors = np.eye(3, dtype=np.float32)
    boxes = np.array([[0, 0, 0, 0], [0.1, 0.1, 0.3, 0.2], [0.5, 0.5, 0.7, 0.6]], np.float32)
    query = np.array([[1, 0.2, 0]], np.float32)  # the prompt's own token is the most alike
    evidence = Evidence("", query, vectors, boxes, [], np.zeros((0, 4), np.float32))
    assert evidence.weights().tolist() == [0, 1, 0]
    assert regions(boxes, evidence.weights())[0][0] == pytest.approx((0.1, 0.1, 0.3, 0.2))
    assert Evidence("", query, vectors[:1], boxes[:1], [], boxes[:0]).weights().tolist() == [0]
