"""Owen values from the outside in: groups first, then what the important ones hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from causalrm.attribution._run import Game
from causalrm.attribution.archive import Archive
from causalrm.core.errors import DataError

if TYPE_CHECKING:
    from causalrm.attribution.shapley import PromptShapley


def refine(
    game: Callable[[], Game],
    whole: Archive,
    stage: Callable[[str], PromptShapley],
    least: float,
    level: float,
) -> tuple[PromptShapley, list[str]]:
    """Open groups until none is left whose value is not zero.

    Parameters
    ----------
    game : callable
        Gives the game between components.
    whole : Archive
        Keeps replies to coalitions of components.
    stage : callable
        Gives an estimator for a kind of values.
    least, level : float
        As in `PromptShapley.refine`.

    Returns
    -------
    fit : PromptShapley
        Of the last stage.
    opened : list of str
    """
    paths = [(*c.group, c.name) for c in game().players]
    if all(len(path) == 1 for path in paths):
        raise DataError("refine needs groups: Component(..., group='...').")
    depth = [1] * len(paths)
    opened: list[str] = []
    while True:
        labels = [path[:d] for path, d in zip(paths, depth, strict=True)]
        merged = game()
        merged.merge(labels, whole)
        fit = stage("owen" if opened else "shapley")._fit(merged, None)
        frame = fit.to_frame(level)
        sure = (frame["conf_low"] > 1e-12) | (frame["conf_high"] < -1e-12)  # beyond rounding
        large = set(frame["term"][sure & (frame["estimate"].abs() > least)])
        split = [
            k
            for k, label in enumerate(labels)
            if len(label) < len(paths[k]) and " / ".join(label) in large
        ]
        if not split:
            return fit, opened
        for k in split:
            depth[k] += 1
        opened += dict.fromkeys(" / ".join(labels[k]) for k in split)
