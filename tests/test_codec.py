"""The codecs against float64: how far a component and a MaxSim score may move, and what is refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from index import Codes
from index.codec import CENTRED, CODECS, decode, encode, rotated
from index.pooling import pool_tokens
from index.ragged import offsets_of

HALF_TINY = 2.0**-24  # the smallest half
_vectors = hnp.arrays(
    np.float32, st.tuples(st.integers(0, 6), st.integers(1, 9)), elements=st.floats(-65504, 65504, width=32)
)


def there_and_back(vectors: np.ndarray, codec: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    values, scales = encode(vectors, codec)
    return decode(Codes(values, offsets_of([len(vectors)]), codec, scales)), values, scales


@settings(deadline=None, derandomize=True, max_examples=300)
@given(_vectors)
def test_int8_is_off_by_half_a_step_at_most(vectors: np.ndarray) -> None:
    back, values, scales = there_and_back(vectors, "int8")
    assert (values.dtype, scales.dtype, scales.shape) == (np.int8, np.dtype("<f2"), (len(vectors),))
    assert values.min(initial=0) >= -127
    steps = scales.astype(np.float64)[:, None]
    largest = np.abs(vectors.astype(np.float64)).max(axis=1, initial=0.0)
    # libraries may have told the processor to take what is below the smallest normal number for zero
    assert (np.abs(back - vectors.astype(np.float64)) <= steps * 0.5 * (1 + 1e-5) + 2.0**-126).all()
    # the step is the smallest half that holds largest / 127: one rounding of half precision above it at most
    assert (scales.astype(np.float64) * 127 >= largest * (1 - 1e-6) - 2.0**-126).all()
    assert (
        scales.astype(np.float64) <= np.maximum(largest / 127 * (1 + 2**-10) * (1 + 1e-6), HALF_TINY) + HALF_TINY
    ).all()


@settings(deadline=None, derandomize=True, max_examples=300)
@given(_vectors)
def test_fp16_rounds_to_the_nearest_half(vectors: np.ndarray) -> None:
    back, values, scales = there_and_back(vectors, "fp16")
    assert scales is None
    assert values.dtype == np.dtype("<f2")
    exact = vectors.astype(np.float64)
    assert (np.abs(back - exact) <= np.maximum(np.abs(exact) * 2.0**-11, HALF_TINY / 2)).all()


def test_the_largest_component_takes_the_whole_range_and_never_minus_128() -> None:
    vectors = np.array([[-1.0, 1.0, 0.5], [-3.7, 0.1, 3.7], [1e-3, -1e-3, 0]], np.float32)
    _, values, _ = there_and_back(vectors, "int8")
    assert values[0].tolist() == [-127, 127, 64] or values[0].tolist() == [-127, 127, 63]
    assert (np.abs(values).max(axis=1) >= 126).all()
    assert values.min() == -127
    np.testing.assert_array_equal(encode(-vectors, "int8")[0], -values)


def test_zero_and_denormal_rows_stay_finite() -> None:
    vectors = np.array([[0, 0], [-0.0, 0], [1e-40, -1e-42], [5e-9, 0]], np.float32)
    for codec in ("int8", "fp16"):
        back, values, _ = there_and_back(vectors, codec)
        assert np.isfinite(back).all()
        assert not values[:2].any()
        assert np.abs(back - vectors).max() <= HALF_TINY / 2


@pytest.mark.parametrize("codec", sorted(CODECS))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 65_505.0, -70_000.0, 1e300])
def test_what_a_half_cannot_hold_is_refused(codec: str, bad: float) -> None:
    vectors = np.full((3, 8), 0.5)
    vectors[1, 2] = bad
    with pytest.raises(ValueError, match="must be finite and within half precision"):
        encode(vectors, codec)


def test_the_largest_half_is_held() -> None:
    vectors = np.array([[65_504.0, -65_504.0, 1.0]], np.float32)
    for codec in ("int8", "fp16"):
        back, _, _ = there_and_back(vectors, codec)
        np.testing.assert_allclose(back[0, :2], vectors[0, :2], rtol=1e-3)


def test_an_unknown_codec_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="fp16, int8, int4, binary; got 'int9'"):
        encode(np.zeros((1, 2), np.float32), "int9")


def test_a_batch_is_its_rows() -> None:
    vectors = np.random.default_rng(1).standard_normal((50, 32)).astype(np.float32)
    for codec in ("int8", "binary"):
        values, scales = encode(vectors, codec)
        for i in range(len(vectors)):
            one, scale = encode(vectors[i : i + 1], codec)
            np.testing.assert_array_equal(one[0], values[i])
            assert scale[0] == scales[i]


@pytest.mark.parametrize(
    ("codec", "worst", "mean"),
    [("fp16", 0.0004, 0.0001), ("int8", 0.006, 0.002), ("int4", 0.06, 0.02), ("binary", 0.3, 0.15)],
)
def test_maxsim_of_unit_vectors_moves_by_this_much_a_query_token(codec: str, worst: float, mean: float) -> None:
    rng = np.random.default_rng(7)
    errors = []
    for dim in (96, 128, 320):
        query = rng.standard_normal((20, dim))
        query /= np.linalg.norm(query, axis=1, keepdims=True)
        for _ in range(8):
            page = rng.standard_normal((300, dim))
            page /= np.linalg.norm(page, axis=1, keepdims=True)
            back, _, _ = there_and_back(page.astype(np.float32), codec)
            exact = (query @ page.T).max(axis=1)
            errors.append(np.abs((query @ back.astype(np.float64).T).max(axis=1) - exact))
    assert np.concatenate(errors).max() < worst
    assert np.concatenate(errors).mean() < mean


def units(shape: tuple[int, ...], seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal(shape)
    return (drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)).astype(np.float32)


def test_int4_lies_in_nibbles_as_documented() -> None:
    vectors = units((40, 10), 1)
    values, scales = encode(vectors, "int4")
    assert (values.dtype, values.shape, scales.dtype) == (np.uint8, (40, 5), np.dtype("<f2"))
    turned = rotated(vectors, "int4")
    for token, components in enumerate(turned):
        nibbles = [*(int(byte) & 15 for byte in values[token]), *(int(byte) >> 4 for byte in values[token])]
        assert min(nibbles) >= 1
        assert np.diff(np.array(nibbles)[np.argsort(components)]).min() >= 0
        stored = float(scales[token]) * (np.array(nibbles) - 8.0)
        assert stored @ components / np.linalg.norm(stored) / np.linalg.norm(components) > 0.98
        assert stored @ components == pytest.approx(stored @ stored, rel=2e-3)  # the scale is the least-squares one


def test_binary_lies_in_bits_as_documented() -> None:
    vectors = units((30, 24), 2)
    vectors[0, :8] = [0.0, -0.0, 1, -1, 1, 1, -1, 1]
    values, scales = encode(vectors, "binary")
    assert (values.dtype, values.shape) == (np.uint8, (30, 3))
    for token, component in np.ndindex(vectors.shape):
        assert (values[token, component // 8] >> (component % 8)) & 1 == (vectors[token, component] >= 0)
    np.testing.assert_allclose(scales, np.abs(vectors).mean(axis=1), rtol=2**-10)


@pytest.mark.parametrize("dim", [2, 8, 96, 128, 320])
def test_the_rotation_is_one_and_stays_what_it_was(dim: int) -> None:
    matrix = rotated(np.eye(dim, dtype=np.float32), "int4").T
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(dim), atol=1e-5)
    for codec in ("fp16", "int8", "binary"):
        vectors = units((3, dim), 3)
        assert rotated(vectors, codec) is vectors
    first = (matrix[0] * np.sqrt(dim)).round().astype(int)
    assert set(first.tolist()) <= {-1, 1}
    if dim == 8:  # of index folders that exist
        assert first.tolist() == [1, 1, 1, -1, 1, -1, 1, -1]


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_scores_are_of_rotated_queries_over_codes_and_of_the_centre(codec: str) -> None:
    vectors, queries = units((50, 64), 4), units((9, 64), 5)
    centre = vectors.mean(axis=0) + 0.1 if codec in CENTRED else None
    values, scales = encode(vectors, codec, centre)
    codes = Codes(values, offsets_of([50]), codec, scales, centre)
    steps = decode(Codes(values, codes.offsets, codec, scales)) @ rotated(np.eye(64, dtype=np.float32), codec)
    plain = rotated(queries, codec) @ steps.T
    lacking = 0 if centre is None else (queries @ centre)[:, None]
    np.testing.assert_allclose(queries @ decode(codes).T, plain + lacking, atol=2e-5)


@pytest.mark.parametrize(("codec", "bare", "centred"), [("int4", 0.02, 0.003), ("binary", 0.5, 0.05)])
def test_a_common_mean_costs_the_coarse_codecs_nothing_once_taken_away(codec: str, bare: float, centred: float) -> None:
    vectors = units((2000, 64), 6) * 0.5 + 3 * units((64,), 7)
    errors = []
    for centre in (None, vectors[:200].mean(axis=0)):
        values, scales = encode(vectors, codec, centre)
        back = decode(Codes(values, offsets_of([2000]), codec, scales, centre))
        errors.append(float(((back - vectors) ** 2).sum() / (vectors**2).sum()))
    assert errors[1] < errors[0] / 4
    assert errors[1] < centred and errors[0] < bare


@pytest.mark.parametrize("codec", ["int4", "binary"])
def test_zero_rows_and_the_largest_halves_stay_finite(codec: str) -> None:
    signs = np.sign(units((1, 32), 8))
    vectors = np.concatenate([np.zeros((2, 32)), np.full((1, 32), 65_504), 65_504 * signs, 1e-30 * signs])
    back, _, scales = there_and_back(vectors.astype(np.float32), codec)
    assert np.isfinite(back).all() and np.isfinite(scales).all()
    assert not back[:2].any()
    assert there_and_back(np.zeros((0, 32), np.float32), codec)[0].shape == (0, 32)


@pytest.mark.parametrize(("codec", "dim"), [("int4", 5), ("binary", 4), ("binary", 9), ("int8", 0)])
def test_a_dimension_that_does_not_fit_is_refused(codec: str, dim: int) -> None:
    with pytest.raises(ValueError, match=f"{codec} packs . components into a byte; {dim} do not divide by that"):
        encode(np.zeros((3, dim), np.float32), codec)


REAL = Path(__file__).parent / "data" / "tokens.npz"
"""Tokens of real pages and questions (piaf_pages of shared/data by octavo-box-1, 100 tokens of each page, in fp16)."""


def noise(codec: str, pool: int) -> float:
    """How far scores move among each other, as a share of how far they lie apart (benchmarks/codecs.py)."""
    with np.load(REAL) as real:
        pages, queries = real["pages"].astype(np.float32), real["queries"].astype(np.float32)
        offsets, bounds = offsets_of(real["lengths"]), offsets_of(real["query_lengths"])
    groups = [pages[a:b] for a, b in pairwise(offsets)]
    stored = [pool_tokens(group, -(-len(group) // pool))[0] for group in groups]
    centre = pages[: offsets[2]].mean(axis=0) if codec in CENTRED else None
    values, scales = encode(np.concatenate(stored), codec, centre)
    ends = offsets_of([len(group) for group in stored])
    back = decode(Codes(values, ends, codec, scales, centre))

    def scores(groups: list[np.ndarray]) -> np.ndarray:
        best = np.stack([(queries @ group.T).max(axis=1) for group in groups], axis=1)
        return np.add.reduceat(best, bounds[:-1], axis=0)

    exact = scores(groups)
    error = scores([back[a:b] for a, b in pairwise(ends)]) - exact
    return float(np.mean((error - error.mean(axis=1, keepdims=True)).std(axis=1) / exact.std(axis=1)))


@pytest.mark.parametrize(
    ("codec", "pool", "allowed"),
    [("fp16", 1, 1e-6), ("int8", 1, 0.03), ("int4", 1, 0.12), ("binary", 1, 0.7), ("fp16", 2, 0.2), ("fp16", 3, 0.3)],
)
def test_on_real_pages_scores_keep_their_order_as_far_as_said(codec: str, pool: int, allowed: float) -> None:
    assert noise(codec, pool) < allowed
    assert pool > 1 or codec == "fp16" or noise(codec, 1) > allowed / 10  # the bound is of this order
