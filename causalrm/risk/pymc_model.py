"""The same posterior as a PyMC model, and NUTS on it. Loads PyMC: import it where it is used.

The variables keep their priors and their original scale; what NUTS moves are the coordinates of
`causalrm.risk.problem`, in which the ridge is straight. They enter as transforms that depend on
sigma, so that ``pm.sample_prior_predictive`` and every other use of the model work as always.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import numba
import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.logprob.transforms import Transform
from pytensor.gradient import DisconnectedType, disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch import numba_funcify
from pytensor.link.numba.dispatch.basic import numba_njit

from causalrm.core.errors import ConvergenceError, DataError
from causalrm.core.parallel import n_threads
from causalrm.risk import density
from causalrm.risk.problem import CURVE, Problem, solve_intercept
from causalrm.risk.rows import Scaling

Differentiated = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class WithGradient(Op):  # type: ignore[misc]
    """An Op around a function of a vector that returns its value and its Jacobian.

    Parameters
    ----------
    function : callable
        theta (k,) -> value of shape (m,), Jacobian of shape (m, k).
    name : str
    """

    def __init__(self, function: Differentiated, name: str):
        self.function, self.name = function, name

    def make_node(self, theta: Any) -> Apply:
        """Apply to a vector; the second output is the Jacobian."""
        return Apply(self, [pt.as_tensor(theta)], [pt.dvector(), pt.dmatrix()])

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        """Compute value and Jacobian."""
        outputs[0][0], outputs[1][0] = self.function(np.asarray(inputs[0], dtype=float))

    def connection_pattern(self, node: Any) -> list[list[bool]]:
        """Only the value is differentiated further."""
        return [[True, False]]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        """Multiply the cotangent of the value with the Jacobian."""
        if isinstance(cotangents[0].type, DisconnectedType):
            return [disconnected_type()]
        return [cotangents[0] @ outputs[1]]

    def __str__(self) -> str:
        return self.name


@numba_funcify.register(WithGradient)  # type: ignore[untyped-decorator]
def _funcify(op: WithGradient, node: Any = None, **kwargs: Any) -> Any:
    # The function is a Python driver of numba kernels that frees the GIL in them, so that going
    # through the interpreter costs some 30 microseconds and chains still run side by side.
    function = op.function

    @numba_njit
    def call(theta):  # type: ignore[no-untyped-def]
        with numba.objmode(value="float64[::1]", jacobian="float64[:, ::1]"):
            value, jacobian = function(theta)
        return value, jacobian

    return call


def _scalar(function: Callable[[Problem, np.ndarray], Any], problem: Problem) -> Differentiated:
    def evaluate(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, gradient = function(problem, np.ascontiguousarray(theta))
        return np.array([float(value)]), np.ascontiguousarray(gradient)[None, :]

    return evaluate


def _implied(problem: Problem) -> Differentiated:
    def evaluate(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = density.implied_prevalence(problem, np.ascontiguousarray(theta))
        return np.ascontiguousarray(found.value), np.ascontiguousarray(found.gradient)

    return evaluate


def _log_slope(problem: Problem, theta: np.ndarray) -> tuple[float, np.ndarray]:
    """Log derivative of the hard term's implied prevalence in the intercept."""
    assert problem.hard is not None
    at = problem.prevalence.index(problem.hard)
    found = density.implied_prevalence(problem, theta)
    return float(np.log(found.slope[at])), found.slope_gradient[at] / found.slope[at]


def _intercept(problem: Problem, theta: np.ndarray) -> tuple[float, np.ndarray]:
    """Intercept that meets the hard target; the first entry of theta is not read."""
    assert problem.hard is not None
    theta = theta.copy()
    theta[0] = solve_intercept(problem, theta)
    at = problem.prevalence.index(problem.hard)
    found = density.implied_prevalence(problem, theta)
    gradient = -found.gradient[at] / found.slope[at]
    gradient[0] = 0.0
    return theta[0], gradient


# ------------------------------------------------------------------------- coordinates


class _Softplus(Transform):  # type: ignore[misc]
    """A positive number as softplus of an unconstrained one."""

    name = "softplus"
    ndim_supp = 0

    def forward(self, value: Any, *inputs: Any) -> Any:
        return value + pt.log(-pt.expm1(-value))

    def backward(self, value: Any, *inputs: Any) -> Any:
        return pt.softplus(value)

    def log_jac_det(self, value: Any, *inputs: Any) -> Any:
        return -pt.softplus(-value)


class _Ridge(Transform):  # type: ignore[misc]
    """Coefficients as k(sigma) g: `inputs` end with scale, shift and sigma; see `_coefficients`."""

    name = "ridge"
    ndim_supp = 1

    def __init__(self, curve: float, half: float):
        self.curve, self.half = curve, half

    def _k(self, sigma: Any) -> Any:
        return pt.sqrt(1.0 + self.curve * sigma**2)

    def forward(self, value: Any, *inputs: Any) -> Any:
        scale, shift, sigma = inputs[-3:]
        z = _standard(value, scale, shift)
        return pt.inc_subtensor(z[0], self.half * sigma) / self._k(sigma)

    def backward(self, value: Any, *inputs: Any) -> Any:
        scale, shift, sigma = inputs[-3:]
        z = pt.inc_subtensor((self._k(sigma) * value)[0], -self.half * sigma) / scale
        return pt.inc_subtensor(z[0], -(z * shift).sum())

    def log_jac_det(self, value: Any, *inputs: Any) -> Any:
        scale, _, sigma = inputs[-3:]
        return value.shape[0] * pt.log(self._k(sigma)) - pt.log(scale).sum()


def _standard(beta: Any, scale: Any, shift: Any) -> Any:
    """Coefficients of the standardised columns."""
    return pt.inc_subtensor((beta * scale)[0], (beta * shift).sum())


def _log_normal(beta: Any, sd: Any, scale: Any, shift: Any, sigma: Any) -> Any:
    z = _standard(beta, scale, shift) / sd
    return (-0.5 * z**2 - pt.log(sd) - 0.5 * np.log(2 * np.pi) + pt.log(scale)).sum()


def _random(
    sd: np.ndarray, scale: np.ndarray, shift: np.ndarray, sigma: Any, rng: Any, size: Any
) -> np.ndarray:
    shape = (*(np.atleast_1d(size) if size is not None else ()), len(sd))
    z = rng.normal(size=shape) * sd / scale
    z[..., 0] -= (z * shift).sum(axis=-1)
    return np.asarray(z)


def _coefficients(
    name: str, sd: np.ndarray, scaling: Scaling, sigma: Any, transform: Transform, dims: str
) -> Any:
    """Coefficients on the scale of the columns, whose prior is normal on standardised ones.

    sigma is a parameter for the sake of the transform alone: the prior does not depend on it.
    """
    return pm.CustomDist(
        name, sd, scaling.scale, scaling.shift, sigma,
        logp=_log_normal, random=_random, signature="(p),(p),(p),()->(p)",
        support_point=lambda rv, *args: pt.zeros_like(rv), transform=transform, dims=dims,
    )  # fmt: skip


class _Effects(Transform):  # type: ignore[misc]
    """Effects of deciders as sd^(1 - c) k(sigma)^c z; see `Problem.centring`."""

    name = "effects"
    ndim_supp = 1

    def __init__(self, curve: float):
        self.curve = curve

    def _log_scale(self, inputs: Any) -> Any:
        centring, sd, sigma = inputs[-3:]
        return (1.0 - centring) * pt.log(sd) + 0.5 * centring * pt.log1p(self.curve * sigma**2)

    def forward(self, value: Any, *inputs: Any) -> Any:
        return value * pt.exp(-self._log_scale(inputs))

    def backward(self, value: Any, *inputs: Any) -> Any:
        return value * pt.exp(self._log_scale(inputs))

    def log_jac_det(self, value: Any, *inputs: Any) -> Any:
        return self._log_scale(inputs).sum()


def _log_effects(effects: Any, centring: Any, sd: Any, sigma: Any) -> Any:
    z = effects / sd
    return (-0.5 * z**2 - pt.log(sd) - 0.5 * np.log(2 * np.pi)).sum()


def _random_effects(centring: np.ndarray, sd: Any, sigma: Any, rng: Any, size: Any) -> np.ndarray:
    shape = (*(np.atleast_1d(size) if size is not None else ()), len(centring))
    return np.asarray(rng.normal(size=shape) * sd)


def build(problem: Problem, risk: Scaling, testing: Scaling) -> pm.Model:
    """Write a problem as a PyMC model.

    Parameters
    ----------
    problem : Problem
        With standardised columns.
    risk, testing : Scaling
        How its columns were standardised: the model's variables are on the scale of the data.

    Returns
    -------
    pymc.Model
        With the variables sigma, risk, testing, and alpha, decider_sd and decider where they are
        inferred; a hard prevalence leaves `risk_free`, all but the intercept.
    """
    coords = {
        "risk_term": list(problem.risk_terms or map(str, range(problem.p))),
        "testing_term": list(problem.testing_terms or map(str, range(problem.q))),
    }
    half = 0.5 if problem.unobservable == "uniform" else 0.0
    curve = CURVE[problem.unobservable]
    softplus = _Softplus()
    with pm.Model(coords=coords) as model:
        sigma = pm.HalfNormal("sigma", problem.sigma_sd, default_transform=softplus)
        plain = _Ridge(curve, 0.0)  # only the intercept of risk moves with the mean of Z
        parts = []
        if problem.hard is None:
            beta = _coefficients(
                "risk", problem.risk_sd, risk, sigma, _Ridge(curve, half), "risk_term"
            )
            parts.append(_standard(beta, risk.scale, risk.shift))
        else:
            slopes: Any = np.zeros(0)
            if problem.p > 1:
                model.add_coord("slope", coords["risk_term"][1:])
                free = Scaling(np.zeros(problem.p - 1), risk.scale[1:])
                slopes = _coefficients(
                    "risk_free", problem.risk_sd[1:], free, sigma, plain, "slope"
                )
            parts.append(pt.concatenate([np.zeros(1), slopes * risk.scale[1:]]))
        delta = _coefficients("testing", problem.testing_sd, testing, sigma, plain, "testing_term")
        parts += [_standard(delta, testing.scale, testing.shift), sigma[None]]
        if problem.alpha is None:
            alpha = pm.HalfNormal("alpha", problem.alpha_sd, default_transform=softplus)
            parts.append(alpha[None])
        if problem.deciders is not None:
            names = problem.decider_terms or range(problem.n_deciders)
            model.add_coord("decider_level", list(names))
            sd = pm.HalfNormal("decider_sd", problem.decider_sd, default_transform=softplus)
            effects = pm.CustomDist(
                "decider", problem.centring, sd, sigma,
                logp=_log_effects, random=_random_effects, signature="(j),(),()->(j)",
                support_point=lambda rv, *args: pt.zeros_like(rv), transform=_Effects(curve),
                dims="decider_level",
            )  # fmt: skip
            parts += [sd[None], effects]
        theta = pt.concatenate(parts)
        if problem.hard is not None:
            start = WithGradient(_scalar(_intercept, problem), "Intercept")(theta)[0]
            theta = pt.set_subtensor(theta[0], start[0])
            slope = WithGradient(_scalar(_log_slope, problem), "LogSlope")(theta)[0][0]
            prior = pm.logp(pm.Normal.dist(0.0, problem.risk_sd[0]), theta[0])
            pm.Potential("hard_prevalence", prior - slope)
            raw = theta[1 : problem.p] / risk.scale[1:]
            first = theta[0] - (raw * risk.shift[1:]).sum()
            pm.Deterministic("risk", pt.concatenate([first[None], raw]), dims="risk_term")
        rows = WithGradient(_scalar(density.log_likelihood, problem), "Rows")
        pm.Potential("likelihood", rows(theta)[0][0])
        if problem.prevalence:
            implied = WithGradient(_implied(problem), "ImpliedPrevalence")(theta)[0]
            pm.Deterministic("implied_prevalence", implied)
            for i, term in enumerate(problem.prevalence):
                if term.a is not None and term.b is not None:
                    known = (term.a - 1) * pt.log(implied[i])
                    known += (term.b - 1) * pt.log1p(-implied[i])
                elif not term.hard:
                    known = -0.5 * ((implied[i] - term.target) / term.se) ** 2
                else:
                    continue
                pm.Potential(f"prevalence_{i}", known)
    return model


# ------------------------------------------------------------------------- sampling

_OPTIONS = {"sampler", "draws", "tune", "chains", "target_accept", "cores", "progress"}


def choose_sampler(options: Mapping[str, Any]) -> str:
    """Check the options of NUTS and say which sampler runs it."""
    unknown = set(options) - _OPTIONS
    if unknown:
        raise DataError(
            f"Expected options of NUTS among {sorted(_OPTIONS)}, but saw {sorted(unknown)}. "
            "Remove them."
        )
    found = "nutpie" if find_spec("nutpie") else "pymc"
    sampler = str(options.get("sampler", found))
    if sampler not in ("nutpie", "pymc"):
        raise DataError(f"Expected the sampler 'nutpie' or 'pymc', but saw {sampler!r}. Give one.")
    return sampler


def sample(model: pm.Model, seed: int, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Run NUTS: nutpie where it is installed, else PyMC.

    Parameters
    ----------
    model : pymc.Model
    seed : int
    options : mapping
        sampler, draws, tune (each per chain), chains, target_accept, cores, progress.

    Returns
    -------
    xarray.DataTree, str
        Draws with sample statistics, and the name of the sampler.
    """
    sampler = choose_sampler(options)
    draws, tune = int(options.get("draws", 1000)), int(options.get("tune", 1000))
    chains = int(options.get("chains", 4))
    accept = float(options.get("target_accept", 0.9))
    cores = int(options.get("cores", min(chains, n_threads())))
    progress = bool(options.get("progress", False))
    try:
        with warnings.catch_warnings():
            # numba says that the Op goes through the interpreter, PyMC that its full metric is new
            warnings.filterwarnings("ignore", module="numba|pytensor|nutpie")
            warnings.filterwarnings("ignore", message=".*(QuadPotentialFullAdapt|experimental).*")
            if sampler == "nutpie":
                import nutpie

                compiled = nutpie.compile_pymc_model(model, backend="numba")
                tree = nutpie.sample(
                    compiled, draws=draws, tune=tune, chains=chains, cores=cores, seed=seed,
                    target_accept=accept, adaptation="low_rank", progress_bar=progress,
                    save_warmup=False,
                )  # fmt: skip
            else:
                tree = pm.sample(
                    draws, tune=tune, chains=chains, cores=cores, random_seed=seed, model=model,
                    init="jitter+adapt_full", target_accept=accept, progressbar=progress,
                    quiet=True, compute_convergence_checks=False,
                )  # fmt: skip
    except (RuntimeError, pm.exceptions.SamplingError) as error:
        raise ConvergenceError(
            f"NUTS ({sampler}) stopped: {error}. Rescale the columns, simplify the formulas or "
            "tighten the priors."
        ) from error
    return tree, sampler


__all__ = ["WithGradient", "build", "choose_sampler", "sample"]
