"""Simulated logs of outcomes in which a known confounder is entangled with text quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from causalrm.core.errors import DataError
from causalrm.core.random import RNG, resolve
from causalrm.datasets._simulated import Simulated, check_ranges

if TYPE_CHECKING:
    import pandas as pd

_FEATURES = ("quality", "noise", "style")


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise DataError(f"Expected {name} above 0, but saw {value!r}. Give such a number.")


# --------------------------------------------------------------------------- numbers


@dataclass(frozen=True, kw_only=True)
class LoggedTruth:
    """What simulated logged rewards depend on, and where every method converges to.

    Attributes
    ----------
    beta, gamma, rho, pi, delta, hidden, var_v, style_noise, error_sd : float
        As in `make_logged_rewards`.
    entropy : int
        Given as ``rng`` it repeats the simulation.
    """

    beta: float
    gamma: float
    rho: float
    pi: float
    delta: float
    hidden: float
    var_v: float
    style_noise: float
    error_sd: float
    entropy: int

    def reward(self, data: pd.DataFrame) -> np.ndarray:
        """True reward of rows, shape (n,): ``beta * quality``."""
        return np.asarray(self.beta * data["quality"].to_numpy(float))

    def covariance(self) -> pd.DataFrame:
        """Population covariance of features, popularity, instrument and outcome."""
        import pandas as pd

        # Independent parts: instrument, quality, v, noise, noise of style, error.
        z, u, v, noise, s, e = np.eye(6)
        popularity = self.pi * z + self.rho * u + v
        outcome = self.beta * u + self.gamma * popularity + self.delta * z + self.hidden * v + e
        names = [*_FEATURES, "popularity", "instrument", "outcome"]
        forms = np.stack([u, noise, popularity + s, popularity, z, outcome])
        variances = [1.0, 1.0, self.var_v, 1.0, self.style_noise, self.error_sd**2]
        return pd.DataFrame(forms * variances @ forms.T, names, names)

    def limits(self, method: str, features: Sequence[str] = _FEATURES) -> dict[str, float]:
        """Where a method with linear nuisances converges to, in closed form.

        Parameters
        ----------
        method : str
            One of those of `DeconfoundedReward`.
        features : sequence of str
            Which of ``quality, noise, style`` the method sees.

        Returns
        -------
        dict of str to float
            ``popularity``: what is subtracted per unit; and the reward's slope on each feature.
        """
        frame = self.covariance()
        s = frame.to_numpy(float)
        place = {name: i for i, name in enumerate(frame)}
        x = [place[name] for name in features]
        z, c, y = (place[name] for name in ("instrument", "popularity", "outcome"))
        on_c, on_y = (np.linalg.solve(s[np.ix_(x, x)], s[x, target]) for target in (c, y))
        explained = float(on_c @ s[x, c])
        if method == "ignore":
            gamma = 0.0
        elif method == "residualise":
            gamma = s[c, y] / s[c, c]
        elif method == "invariance":
            gamma = float(on_c @ s[x, y]) / explained
        elif method in ("plr", "joint", "input"):
            gamma = (s[c, y] - float(on_c @ s[x, y])) / (s[c, c] - explained)
        elif method == "iv":
            gamma = s[z, y] / s[z, c]
        else:
            raise DataError(f"Expected the name of a method, but saw {method!r}. Correct it.")
        values = [float(gamma), *(on_y - gamma * on_c).tolist()]
        return dict(zip(["popularity", *features], values, strict=True))


def make_logged_rewards(
    n: int = 1000,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    rho: float = 0.8,
    pi: float = 0.5,
    delta: float = 0.0,
    hidden: float = 0.0,
    var_v: float = 0.5,
    style_noise: float = 0.5,
    error_sd: float = 1.0,
    authors: int | None = None,
    icc: float = 0.3,
    per_prompt: int = 4,
    rng: RNG = None,
) -> Simulated[LoggedTruth]:
    r"""Simulate a log whose confounder is entangled with quality, with closed-form truths.

    With independent normal quality U, instrument Z, v and e: popularity is
    :math:`P = \pi Z + \rho U + v`, the outcome :math:`Y = \beta U + \gamma P + \delta Z + h v + e`,
    and the features are U, noise that means nothing, and a style that follows popularity,
    :math:`s = P + \xi`. The true reward is :math:`\beta U`.

    Parameters
    ----------
    n : int
        Number of rows.
    beta, gamma : float
        Effects of quality and of popularity.
    rho : float
        Entanglement of popularity with quality.
    pi : float
        Strength of the instrument.
    delta : float
        Direct effect of the instrument, which should have none.
    hidden : float
        h, by which what moves popularity moves the outcome too: not 0, and only the instrument
        identifies gamma.
    var_v, style_noise : float
        Variances of v and of the noise in style.
    error_sd : float
    authors : int, optional
        Rows belong to so many authors; a share `icc` of the variances of v and e is theirs.
    icc : float
    per_prompt : int
        Rows that answer the same prompt.
    rng : None, int, SeedSequence or Generator

    Returns
    -------
    Simulated
        The pair ``(data, truth)``: a `pandas.DataFrame` with the columns ``prompt, quality, noise,
        style, popularity, instrument, outcome`` (and ``author``), and a `LoggedTruth`.

    Raises
    ------
    DataError
        For arguments outside their range.

    Examples
    --------
    >>> from causalrm.datasets import make_logged_rewards
    >>> data, truth = make_logged_rewards(100, rng=0)
    >>> {term: round(value, 3) for term, value in truth.limits("residualise").items()}
    {'popularity': 1.576, 'quality': 0.816, 'noise': 0.0, 'style': -0.345}
    """
    import pandas as pd

    _positive(n=n, var_v=var_v, style_noise=style_noise, error_sd=error_sd, per_prompt=per_prompt)
    check_ranges(icc=(icc, 0, 1), authors=(1 if authors is None else authors, 1, 10**8))
    generator, entropy = resolve(rng)
    z, u, noise, v, e = generator.normal(size=(5, n))
    columns: dict[str, np.ndarray] = {"prompt": np.arange(n) // per_prompt}
    if authors is not None:
        columns["author"] = author = generator.integers(authors, size=n)
        shared = generator.normal(size=(2, authors))[:, author]
        v, e = (np.sqrt(icc) * a + np.sqrt(1 - icc) * b for a, b in zip(shared, (v, e)))  # noqa: B905
    v, e = np.sqrt(var_v) * v, error_sd * e
    popularity = pi * z + rho * u + v
    style = popularity + np.sqrt(style_noise) * generator.normal(size=n)
    outcome = beta * u + gamma * popularity + delta * z + hidden * v + e
    columns |= {
        "quality": u, "noise": noise, "style": style, "popularity": popularity, "instrument": z,
        "outcome": outcome,
    }  # fmt: skip
    truth = LoggedTruth(
        beta=beta, gamma=gamma, rho=rho, pi=pi, delta=delta, hidden=hidden, var_v=var_v,
        style_noise=style_noise, error_sd=error_sd, entropy=entropy,
    )  # fmt: skip
    return Simulated(pd.DataFrame(columns), truth)


# --------------------------------------------------------------------------- headlines

_STORIES = (
    "Night ferry to keep running", "School kitchens to drop plastic", "Old mill to become library",
    "Tram line to close for summer", "Bees return to rail yard", "Museum to lend its maps",
    "Clinic to open on Sundays", "Harbour to charge its boats", "Rents to be capped again",
    "Orchestra to play in prisons", "Glacier to lose its lake", "Bakers to share their ovens",
    "Dam to spill for salmon", "Airport to halt late flights", "Archive to scan its letters",
    "Farm to test silent drones", "Bank to shut its counters", "Police to wear new cameras",
    "Theatre to pay its interns", "Bridge to be rebuilt in oak", "Census to ask about heat",
    "Market to move indoors", "Village to buy its pub", "Stadium to store rain",
)  # fmt: skip
_PIECES = {
    "figure": (" after 340 requests", " for 1,900 households", " at a cost of 12 million"),
    "place": (" in Leeds", " in Porto", " in Tampere", " in Graz"),
    "source": (", audit finds", ", court papers show", ", minutes reveal"),
    "teaser": ("You will not believe this: ", "This changes everything: ", "Wow: "),
    "exclamation": ("!", "!!"),
}
_QUALITY = ("figure", "place", "source")
_THETA = {"figure": 3.0, "place": 2.0, "source": 2.5, "teaser": 0.0, "exclamation": 0.0}


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadlineTruth:
    """What the clicks of simulated headlines depend on, and how any headline would fare.

    Attributes
    ----------
    theta : dict of str to float
        Clicks per thousand impressions that each attribute of a headline adds.
    gamma : float
        Clicks per thousand impressions for each thousand readers online.
    attributes : pandas.DataFrame
        Attributes of each row's headline, 0 or 1.
    entropy : int
        Given as ``rng`` it repeats the simulation.
    """

    theta: dict[str, float]
    gamma: float
    attributes: pd.DataFrame = field(repr=False)
    entropy: int

    def measure(self, headlines: Sequence[str]) -> pd.DataFrame:
        """Read the attributes of headlines, edited ones too: one row each, 0 or 1."""
        import pandas as pd

        found = {
            name: [float(any(piece in h for piece in pieces)) for h in headlines]
            for name, pieces in _PIECES.items()
        }
        return pd.DataFrame(found)

    def reward(self, headlines: Sequence[str]) -> np.ndarray:
        """True reward, shape (n,): clicks per thousand that the attributes of quality add."""
        names = list(self.theta)
        weights = np.array(list(self.theta.values()))
        return np.asarray(self.measure(headlines)[names].to_numpy() @ weights)


def make_headlines(
    n: int = 2000,
    *,
    gamma: float = 0.4,
    entanglement: float = 0.8,
    style_follows: float = 0.8,
    error_sd: float = 3.0,
    editors: int = 60,
    rng: RNG = None,
) -> Simulated[HeadlineTruth]:
    """Simulate headlines whose clicks were logged under a changing time of day.

    A headline tells one of 24 stories; it may have a figure, a place and a source, which readers
    click on, and a teaser and exclamation marks, which they do not care about. Editors keep the
    hours in which most readers are online for headlines of quality, and decorate those that they
    schedule there. A lottery delays some headlines into other hours.

    Parameters
    ----------
    n : int
        Number of rows.
    gamma : float
        Clicks per thousand impressions for each thousand readers online.
    entanglement : float
        How strongly the hour follows quality.
    style_follows : float
        How strongly style follows the hour.
    error_sd : float
        Of the clicks per thousand impressions.
    editors : int
        Number of editors, each of whom follows one story and shares a part of the error.
    rng : None, int, SeedSequence or Generator

    Returns
    -------
    Simulated
        The pair ``(data, truth)``: a `pandas.DataFrame` with the columns ``story, headline, editor,
        hour`` (0 to 23), ``readers`` (thousands online), ``lottery`` (-1, 0 or 1: earlier, as
        planned, later in the order of hours by readers) and ``clicks`` (per thousand impressions),
        and a `HeadlineTruth`.

    Raises
    ------
    DataError
        For arguments outside their range.

    Examples
    --------
    >>> from causalrm.datasets import make_headlines
    >>> data, truth = make_headlines(50, rng=0)
    >>> truth.reward(["Bees return to rail yard in Graz!!", "Wow: Market to move indoors"]).tolist()
    [2.0, 0.0]
    """
    import pandas as pd
    from scipy.special import ndtr

    _positive(n=n, error_sd=error_sd, editors=editors)
    generator, entropy = resolve(rng)
    editor = generator.integers(editors, size=n)
    story = editor % len(_STORIES)  # an editor follows one story
    quality = {name: generator.random(n) < 0.5 for name in _QUALITY}
    worth = sum(_THETA[name] * (values - 0.5) for name, values in quality.items())
    worth = worth / np.sqrt(sum(0.25 * _THETA[name] ** 2 for name in _QUALITY))
    lottery = generator.integers(-1, 2, size=n)
    plan = entanglement * worth + 0.7 * lottery + generator.normal(size=n)
    spread = np.sqrt(entanglement**2 + 0.7**2 * 2 / 3 + 1)
    rank = np.clip((24 * ndtr(plan / spread)).astype(int), 0, 23)
    hours = np.arange(24)
    curve = 20 - 14 * np.cos(2 * np.pi * (hours - 4) / 24) + 4 * np.sin(4 * np.pi * hours / 24)
    hour = np.argsort(curve, kind="stable")[rank]
    readers = curve[hour] + generator.normal(size=n)
    popular = (readers - curve.mean()) / curve.std()
    style = {
        name: style_follows * popular + generator.normal(size=n) > 0
        for name in ("teaser", "exclamation")
    }
    parts = {}
    for name, values in (quality | style).items():
        pieces = np.array(_PIECES[name], dtype=object)
        parts[name] = np.where(values, pieces[generator.integers(len(pieces), size=n)], "")
    stories = np.array(_STORIES, dtype=object)[story]
    headline = parts["teaser"] + stories
    for name in ("place", "figure", "source", "exclamation"):
        headline = headline + parts[name]
    attributes = pd.DataFrame({name: (quality | style)[name].astype(float) for name in _PIECES})
    error = 0.9 * generator.normal(size=n) + np.sqrt(0.19) * generator.normal(size=editors)[editor]
    reward = attributes.to_numpy() @ np.array(list(_THETA.values()))
    data = pd.DataFrame(
        {
            "story": stories.astype(str),
            "headline": headline.astype(str),
            "editor": [f"editor {i}" for i in editor],
            "hour": hour,
            "readers": readers,
            "lottery": lottery,
            "clicks": 12 + reward + gamma * readers + error_sd * error,
        }
    )
    truth = HeadlineTruth(theta=dict(_THETA), gamma=gamma, attributes=attributes, entropy=entropy)
    return Simulated(data, truth)
