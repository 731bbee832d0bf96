"""The `rng` argument: None, an int, a SeedSequence or a Generator, to numpy Generators."""

from __future__ import annotations

from numbers import Integral

import numpy as np
from numpy.random import Generator, SeedSequence

from causalrm.core.errors import DataError

type RNG = int | np.integer | SeedSequence | Generator | None


def resolve(rng: RNG = None) -> tuple[Generator, int]:
    """Turn an `rng` argument into a Generator and the entropy it came from.

    Parameters
    ----------
    rng : None, int, numpy.random.SeedSequence or numpy.random.Generator
        None draws fresh entropy from the operating system. A Generator is returned as it is,
        so that drawing from it advances it, as everywhere in numpy.

    Returns
    -------
    generator : numpy.random.Generator
    entropy : int
        Given as `rng` later, it repeats the same draws and the same children. (For a Generator
        it repeats the children; its own draws depend on what was drawn from it before.)

    Raises
    ------
    DataError
        For anything else: a bool, a negative number, a float.

    Examples
    --------
    >>> generator, entropy = resolve(7)
    >>> entropy
    7
    >>> generator.integers(100, size=3)
    array([94, 62, 68])
    """
    sequence = _sequence(rng)
    generator = rng if isinstance(rng, Generator) else np.random.default_rng(sequence)
    return generator, int(sequence.entropy)  # type: ignore[arg-type]


def spawn(rng: RNG, n: int) -> list[Generator]:
    """Make `n` independent Generators; a second call makes the same ones again.

    The children come from a copy of the SeedSequence, because `SeedSequence.spawn` changes its
    own, and a second fit would differ. The children of a Generator come from a copy of the seed
    that it was made with, whatever was drawn from it since. So spawn once in a fit and hand
    the children out, or streams repeat.

    Examples
    --------
    >>> [int(child.integers(100)) for child in spawn(7, 3)]
    [30, 68, 39]
    """
    return [np.random.default_rng(child) for child in _sequence(rng).spawn(n)]


def seed_int(generator: Generator) -> int:
    """Draw a seed for libraries that want a plain int (scikit-learn, econml, pymc)."""
    return int(generator.integers(2**31 - 1))


def _sequence(rng: RNG) -> SeedSequence:
    """Make a new SeedSequence that its `entropy`, one int, describes completely."""
    if rng is None:
        return SeedSequence()
    if isinstance(rng, Generator):
        # A bit generator made from a legacy seed or from a key alone has no SeedSequence.
        seed = getattr(rng.bit_generator, "seed_seq", None)
        if not isinstance(seed, SeedSequence):
            raise DataError(
                "rng is a Generator without a SeedSequence, so that no independent children "
                "can be made. Make it with numpy.random.default_rng(seed), or give an int."
            )
        return _sequence(seed)
    if isinstance(rng, SeedSequence):
        plain = isinstance(rng.entropy, Integral) and not rng.spawn_key
        if plain and rng.pool_size == 4 and not rng.n_children_spawned:
            return SeedSequence(int(rng.entropy))  # type: ignore[arg-type]
        # A child, or one that has children of its own: fold all that sets it apart into one
        # int, which can be recorded and does not collide with children made elsewhere.
        state = rng.generate_state(4, np.uint64)
        return SeedSequence(int.from_bytes(state.tobytes(), "little"))
    if isinstance(rng, Integral) and not isinstance(rng, bool) and rng >= 0:
        return SeedSequence(int(rng))
    raise DataError(
        f"rng must be None, a non-negative int, a SeedSequence or a Generator; got {rng!r}. "
        "Give an int, such as rng=0, for draws that can be repeated."
    )
