"""Uniform quantization against the nearest of all values, and its code length against a coder's count."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rct_ray.transform.quantize import code_bits, quantize


def adaptive_bits(levels, count):
    """Code a component number by number: each by how often it came before, half a count to begin with."""
    seen, bits = np.full(count, 0.5), 0.0
    for level in levels:
        bits -= math.log2(seen[level] / seen.sum())
        seen[level] += 1
    return bits


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_every_code_is_rounded_to_the_nearest_value(bits):
    codes = np.random.default_rng(bits).standard_normal((200, 3)) * [1, 1e-9, 1e12] + [0, 5, -3e12]
    quantized = quantize(codes, bits)
    assert quantized.levels.min() >= 0
    assert quantized.levels.max() < 2**bits
    for component in range(3):
        grid = quantized.offset[component] + quantized.step[component] * np.arange(2**bits)
        nearest = np.abs(codes[:, component, None] - grid).min(axis=1)
        lost = np.abs(codes[:, component] - quantized.values()[:, component])
        np.testing.assert_allclose(lost, nearest, rtol=0, atol=1e-6 * quantized.step[component])


def test_known_values():
    quantized = quantize(np.array([[-1.0], [1.0], [-1.0], [1.0]]), 1)
    np.testing.assert_array_equal(quantized.values(), [[-1], [1], [-1], [1]])
    np.testing.assert_array_equal(quantized.levels, [[0], [1], [0], [1]])
    even = quantize(np.arange(16.0)[:, None], 4)
    np.testing.assert_allclose(even.values()[:, 0], np.arange(16), atol=1e-12)


def test_white_noise_loses_little_more_than_the_best_uniform_quantizer():
    """Normal numbers in 2, 3 and 4 bits: Max's optimal uniform quantizers lose 0.1188, 0.03744, 0.01154."""
    codes = np.random.default_rng(0).standard_normal((20000, 1))
    for bits, optimum in ((2, 0.1188), (3, 0.03744), (4, 0.01154)):
        lost = np.mean((codes - quantize(codes, bits).values()) ** 2)
        assert 0.95 * optimum < lost < 1.1 * optimum


def test_an_outlier_does_not_coarsen_the_rest():
    codes = np.random.default_rng(0).standard_normal((5000, 1))
    plain = np.sum((codes - quantize(codes, 4).values()) ** 2)
    codes[0] = 20.0
    lost = (codes - quantize(codes, 4).values()) ** 2
    spread = np.linspace(-20, 20, 16)
    naive = np.abs(codes - spread).min(axis=1) ** 2
    assert np.sum(lost) < 0.5 * np.sum(naive)
    assert np.sum(lost[1:]) < 4 * plain


@pytest.mark.parametrize("rows", [1, 2, 50])
def test_constant_components_are_exact(rows):
    codes = np.full((rows, 2), [0.0, -7.5])
    quantized = quantize(codes, 3)
    np.testing.assert_array_equal(quantized.values(), codes)
    assert not quantized.levels.any()
    assert not quantized.step.any()


def test_code_length_is_that_of_an_adaptive_coder():
    codes = np.random.default_rng(3).standard_normal((300, 2)) * [1, 1e-3]
    codes[:, 1] = np.where(codes[:, 1] > 0.002, 1, 0)  # hardly any ones: costs far less than a bit each
    quantized = quantize(codes, 3)
    want = sum(1 + min(adaptive_bits(component, 8), 900) for component in quantized.levels.T)
    assert code_bits(quantized) == pytest.approx(want, rel=1e-12)
    assert code_bits(quantize(codes[:, 1:], 3)) < 300


def test_few_numbers_of_many_bits_are_sent_plainly():
    quantized = quantize(np.random.default_rng(0).standard_normal((20, 3)), 16)
    assert code_bits(quantized) == 3 * (20 * 16 + 1)


@given(
    rows=st.integers(1, 30),
    size=st.integers(1, 5),
    bits=st.integers(1, 16),
    scale=st.sampled_from([1e-150, 1e-9, 1.0, 1e12, 1e150]),
    seed=st.integers(0, 2**16),
)
def test_any_codes(rows, size, bits, scale, seed):
    codes = scale * np.random.default_rng(seed).standard_normal((rows, size)).round(1)
    quantized = quantize(codes, bits)
    values = quantized.values()
    assert np.isfinite(values).all()
    # Never worse than one value for all, and never more bits than the plain levels.
    variance = np.sum((codes - codes.mean(axis=0)) ** 2)
    assert np.sum((codes - values) ** 2) <= variance * (1 + 1e-9) + 1e-20 * scale**2
    assert 0 <= code_bits(quantized) <= size * (rows * bits + 1)


@pytest.mark.parametrize("bits", [0, 17, -1])
def test_bits_out_of_range(bits):
    with pytest.raises(ValueError, match="bits must be from 1 to 16"):
        quantize(np.ones((2, 2)), bits)
