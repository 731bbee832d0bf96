from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import MT19937, Generator, RandomState, SeedSequence, default_rng

from causalrm import DataError
from causalrm.core.random import RNG, resolve, seed_int, spawn


def draws(rng: RNG) -> list[list[int]]:
    return [child.integers(2**40, size=3).tolist() for child in spawn(rng, 3)]


@given(st.integers(0, 2**130))
def test_int_is_its_own_entropy_and_numpys_stream(seed: int) -> None:
    generator, entropy = resolve(seed)
    assert entropy == seed
    assert generator.random() == default_rng(seed).random()
    assert draws(seed) == draws(seed) == draws(np.random.default_rng(seed))


@pytest.mark.parametrize(
    "make",
    [
        lambda: 3,
        lambda: np.int64(3),
        lambda: SeedSequence(3),
        lambda: SeedSequence([1, 2, 3]),
        lambda: SeedSequence(3).spawn(2)[1],
        lambda: SeedSequence(3, pool_size=8),
        lambda: default_rng(3),
        lambda: default_rng([4, 5]),
        lambda: Generator(MT19937(3)),
    ],
)
def test_the_entropy_repeats_the_children(make: object) -> None:
    rng = make()  # type: ignore[operator]
    generator, entropy = resolve(rng)
    expected = draws(rng)
    assert draws(entropy) == draws(generator) == draws(rng) == expected
    assert len({tuple(child) for child in expected}) == 3


def test_children_leave_the_argument_as_it_was() -> None:
    sequence, generator = SeedSequence(5), default_rng(5)
    before = pickle.dumps(generator)
    first = draws(sequence), draws(generator)
    assert sequence.n_children_spawned == 0
    assert pickle.dumps(generator) == before
    generator.random(10)
    assert (draws(sequence), draws(generator)) == first


def test_a_generator_is_returned_and_advances() -> None:
    generator = default_rng(1)
    assert resolve(generator)[0] is generator


def test_no_collision_with_children_made_elsewhere() -> None:
    sequence = SeedSequence(9)
    theirs = [default_rng(child).integers(2**40, size=3).tolist() for child in sequence.spawn(3)]
    assert not {tuple(x) for x in theirs} & {tuple(x) for x in draws(sequence)}


def test_none_draws_and_records_entropy() -> None:
    (a, entropy), (b, other) = resolve(None), resolve(None)
    assert entropy != other
    assert a.random() == resolve(entropy)[0].random() != b.random()


@pytest.mark.parametrize("bad", [True, False, -1, 1.5, "7", [1, 2], RandomState(0)])
def test_bad_argument(bad: object) -> None:
    with pytest.raises(DataError, match="rng must be None, a non-negative int"):
        resolve(bad)  # type: ignore[arg-type]


def test_generator_without_a_seed_sequence() -> None:
    with pytest.raises(DataError, match="without a SeedSequence"):
        spawn(Generator(RandomState(3)._bit_generator), 2)


def test_seed_int_suits_32_bit_seeds() -> None:
    seeds = [seed_int(default_rng(i)) for i in range(200)]
    assert all(type(s) is int and 0 <= s < 2**31 for s in seeds)
    assert len(set(seeds)) == 200
