"""An oracle in feature space, for simulations of what augmentation can and cannot repair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from causalrm.augment.oracle import Ask, Attribute, Element, OracleReply
from causalrm.core.errors import DataError


class VectorOracle:
    """Moves causal features of vectors, and leaks into spurious ones.

    An answer is a vector ``(C_1, ..., C_k, S_1, ..., S_m)``: causal features first. Rewriting
    moves one causal feature by `step`, up or down, and the spurious feature of the same place
    by ``leak * U(0, 1)`` in the same direction. Beside an unrelated query the causal features of
    any answer are zero.

    Parameters
    ----------
    n_causal : int, default 5
    step : float, default 1.5
    leak : float, default 0.75
    error : float, default 0
        Probability that a rewriting goes in the wrong direction without being noticed by
        `verify`: the pair is then labelled wrongly.
    noise : float, default 0.5
        Standard deviation by which a paraphrase moves each spurious feature.
    rng : int, default 0
        Seeds the draws, together with the question.

    Examples
    --------
    >>> import numpy as np
    >>> from causalrm.augment import Ask, VectorOracle
    >>> oracle = VectorOracle(n_causal=2, leak=0)
    >>> ask = Ask(step="rewrite", query=0, answer=np.zeros(4), attribute="C2",
    ...           direction="degrade")
    >>> oracle.rewrite([ask])[0].value.tolist()
    [0.0, -1.5, 0.0, 0.0]
    """

    vectors = True

    def __init__(
        self,
        n_causal: int = 5,
        *,
        step: float = 1.5,
        leak: float = 0.75,
        error: float = 0.0,
        noise: float = 0.5,
        rng: int = 0,
    ) -> None:
        if n_causal < 1 or step <= 0 or not 0 <= error <= 1 or noise < 0:
            raise DataError(
                "VectorOracle needs n_causal >= 1, step > 0, error within 0 to 1 and noise >= 0; "
                f"got {n_causal!r}, {step!r}, {error!r} and {noise!r}."
            )
        self.n_causal, self.step, self.leak = n_causal, step, leak
        self.error, self.noise, self.rng = error, noise, rng

    def attributes(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Draw which causal features to name, ``C1`` to ``Ck``."""
        out = []
        for ask in asks:
            if ask.n > self.n_causal:
                reason = f"{ask.n} attributes are wanted, there are {self.n_causal}"
                out.append(OracleReply(status="failed", reason=reason))
                continue
            drawn = ask.generator(self.rng).permutation(self.n_causal)[: ask.n]
            named = tuple(Attribute(f"C{j + 1}", 1.0 / ask.n) for j in sorted(drawn))
            out.append(OracleReply(value=named))
        return out

    def elements(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Name the feature itself as its one element."""
        return [OracleReply(value=(Element(ask.attribute, "raises"),)) for ask in asks]

    def rewrite(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Move a causal feature, and the spurious one of its place."""
        out = []
        for ask in asks:
            rng = ask.generator(self.rng)
            j = self._place(ask)
            sign = 1.0 if ask.direction == "upgrade" else -1.0
            sign *= -1.0 if rng.random() < self.error else 1.0
            new = ask.answer.copy()
            new[j] += sign * self.step
            if self.n_causal + j < len(new):
                new[self.n_causal + j] += sign * self.leak * rng.random()
            out.append(OracleReply(value=new))
        return out

    def verify(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Compare sizes: the target moved by half a step or more, other causes by nothing."""
        out = []
        for ask in asks:
            moved = np.abs(ask.other - ask.answer)[: self.n_causal]
            j = self._place(ask)
            good = moved[j] >= self.step / 2 and not np.delete(moved, j).any()
            out.append(OracleReply(value=bool(good), reason=None if good else f"moved by {moved}"))
        return out

    def paraphrase(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Move spurious features at random."""
        out = []
        for ask in asks:
            new = ask.answer.copy()
            rng = ask.generator(self.rng)
            new[self.n_causal :] += self.noise * rng.standard_normal(len(new) - self.n_causal)
            out.append(OracleReply(value=new))
        return out

    def align(self, asks: Sequence[Ask]) -> list[OracleReply]:
        """Join the causal features of the other answer and the spurious ones of this."""
        k = self.n_causal
        return [OracleReply(value=np.concatenate([a.other[:k], a.answer[k:]])) for a in asks]

    def beside(self, answer: np.ndarray) -> np.ndarray:
        """Features of an answer beside an unrelated query: its causal ones are zero."""
        out = answer.copy()
        out[: self.n_causal] = 0.0
        return out

    def _place(self, ask: Ask) -> int:
        name = ask.attribute
        if not (name[:1] == "C" and name[1:].isdigit() and 1 <= int(name[1:]) <= self.n_causal):
            raise DataError(f"attributes are C1 to C{self.n_causal}; got {name!r}.")
        return int(name[1:]) - 1
