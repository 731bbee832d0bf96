"""A simulated chooser whose utilities are known."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from causalrm.core import random


class SimulatedChooser:
    r"""A simulated person with known utilities, who answers choice prompts.

    Reads the lines ``A. ...``, ``B. ...``; the utility of an option is the sum of its
    attributes times their weights, and choices are those of a logit. Give it to
    `causalrm.llm.FunctionModel`.

    Parameters
    ----------
    weights : dict of str to float
        Per unit of the number that follows the attribute's name.
    centre : dict of str to float, optional
        What an attribute without a number is taken to be; 0 by default.
    words : dict of str to float or dict, optional
        Token noise. A number is added to the utility of an option whose line has the word; a
        dict of attribute to number changes weights when the prompt has the word anywhere.
    position : float, default 0
        Utility of being shown first.

    Examples
    --------
    >>> chooser = SimulatedChooser({"price": -0.01})
    >>> found = chooser("Which?\nA. price: 300\nB. price: 200")
    >>> round(found["B"], 3)
    0.731
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        centre: Mapping[str, float] | None = None,
        words: Mapping[str, float | Mapping[str, float]] | None = None,
        position: float = 0.0,
    ) -> None:
        self.weights, self.centre = dict(weights), dict(centre or {})
        self.words, self.position = dict(words or {}), position

    def __call__(self, prompt: Any) -> dict[str, float]:
        """Probabilities of the letters."""
        text = prompt if isinstance(prompt, str) else "\n".join(m["content"] for m in prompt)
        weights = dict(self.weights)
        for word, effect in self.words.items():
            if isinstance(effect, Mapping) and word in text:
                for attribute, change in effect.items():
                    weights[attribute] += change
        utility = {}
        for i, (letter, line) in enumerate(re.findall(r"(?m)^([A-Z])\. (.*)$", text)):
            u = self.position * (i == 0)
            for name, weight in weights.items():
                found = re.search(rf"{re.escape(name)}[^,\d-]*(-?\d+(?:\.\d+)?)", line)
                centre = self.centre.get(name, 0.0)
                u += weight * ((float(found[1]) if found else centre) - centre)
            u += sum(e for w, e in self.words.items() if not isinstance(e, Mapping) and w in line)
            utility[letter] = u
        top = max(utility.values())
        odds = {letter: math.exp(u - top) for letter, u in utility.items()}
        return {letter: x / sum(odds.values()) for letter, x in odds.items()}

    def drawing(self, rng: random.RNG = 0) -> Callable[[Any], str]:
        """Return a function that answers a prompt with a letter, drawn anew each time.

        Behind a service requests carry no replicate, so that a service must draw by itself.
        """
        generator = random.resolve(rng)[0]

        def answer(prompt: Any) -> str:
            found = self(prompt)
            return str(generator.choice(list(found), p=list(found.values())))

        return answer
