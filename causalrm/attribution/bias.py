"""Pairs of prompts that state the same facts in two ways, as attribution games."""

from __future__ import annotations

from dataclasses import dataclass

from causalrm.attribution.template import Component, Neutral, PromptTemplate


@dataclass(frozen=True)
class BiasPair:
    """A choice whose wording should not matter.

    Attributes
    ----------
    name : str
    template : PromptTemplate
        With the component "frame", whose absence is the other frame; facts, which are
        informative; and filler, which is neutral and has paraphrases for the placebo test.
    options : tuple of str
    target : str
        The option that the frame is known to favour in people.
    source : str
        Where the effect was described in people.
    """

    name: str
    template: PromptTemplate
    options: tuple[str, ...]
    target: str
    source: str


def _pair(
    name: str,
    text: str,
    frame: tuple[str, str],
    facts: dict[str, tuple[str, str]],
    options: tuple[str, str],
    source: str,
) -> BiasPair:
    """`facts` are (text, what stands there when absent)."""
    filler = [
        Component("greeting", "Please read this carefully.", role="neutral",
                  paraphrases=("Kindly read this with care.",)),
        Component("closing", "Take your time to decide.", role="neutral",
                  paraphrases=("There is no hurry to decide.",)),
    ]  # fmt: skip
    components = [
        filler[0],
        *(Component(k, a, role="informative", baseline=Neutral(b)) for k, (a, b) in facts.items()),
        Component("frame", frame[0], role="neutral", baseline=Neutral(frame[1])),
        filler[1],
    ]
    template = PromptTemplate("{greeting} " + text + " {closing}", components)
    return BiasPair(name, template, options, options[0], source)


def bias_pairs() -> dict[str, BiasPair]:
    """Return the pairs by name: framing, anchoring, default, sunk cost and bandwagon.

    Returns
    -------
    dict of str to BiasPair

    References
    ----------
    Tversky, Kahneman (1981), doi:10.1126/science.7455683; (1974),
    doi:10.1126/science.185.4157.1124. Samuelson, Zeckhauser (1988), doi:10.1007/BF00055564.
    Arkes, Blumer (1985), doi:10.1016/0749-5978(85)90049-4. Asch (1956), doi:10.1037/h0093718.

    Examples
    --------
    >>> pair = bias_pairs()["framing"]
    >>> print(pair.template.render([True] * len(pair.template)))
    Please read this carefully. A flood threatens 300 houses. With plan one 100 houses are saved.
    With plan two there is one chance in three that all are saved. Take your time to decide.
    """
    pairs = [
        _pair(
            "framing",
            "A flood threatens {number} houses. {frame}",
            (
                "With plan one 100 houses are saved. With plan two there is one chance in three "
                "that all are saved.",
                "With plan one 200 houses are lost. With plan two there are two chances in three "
                "that all are lost.",
            ),
            {"number": ("300", "some")},
            ("plan one", "plan two"),
            "Tversky and Kahneman 1981",
        ),
        _pair(
            "anchoring",
            "{frame} The bicycle is {age} and {state}. Is a fair price above or below 150 euros?",
            ("The last three digits of its number are 900.", "The last three digits are 012."),
            {"age": ("six years old", "used"), "state": ("was serviced in May", "complete")},
            ("above", "below"),
            "Tversky and Kahneman 1974",
        ),
        _pair(
            "default",
            "{frame} Fund one costs {fee one} a year and fund two {fee two}.",
            ("Your savings are in fund one already.", "Your savings are in fund two already."),
            {"fee one": ("0.5 %", "a fee"), "fee two": ("0.4 %", "a fee")},
            ("fund one", "fund two"),
            "Samuelson and Zeckhauser 1988",
        ),
        _pair(
            "sunk cost",
            "{frame} Finishing the bridge costs {price} and saves {gain}.",
            (
                "We have spent 8 million on a bridge that is half built.",
                "We were given a bridge that is half built.",
            ),
            {"price": ("3 million", "money"), "gain": ("2 million", "money")},
            ("finish", "stop"),
            "Arkes and Blumer 1985",
        ),
        _pair(
            "bandwagon",
            "Which line is as long as a line of {length}: line one, of {first}, or line two, of "
            "{second}? {frame}",
            ("Six others said line one.", "Six others said line two."),
            {
                "length": ("8 cm", "some length"),
                "first": ("7 cm", "some length"),
                "second": ("8 cm", "some length"),
            },
            ("line one", "line two"),
            "Asch 1956",
        ),
    ]
    return {pair.name: pair for pair in pairs}
