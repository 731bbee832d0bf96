"""
Melanoma: is a part of the patients cured?
==========================================

The trial E1684 gave patients with high-risk melanoma, after surgery, either interferon alfa-2b or
nothing. The curve of relapse-free survival falls steeply and then flattens. Two readings are
possible: some patients will never relapse, or the hazard of all of them falls slowly. This
analysis fits a family that contains both, says what the cured fraction would be, and asks how
much of that answer is data.

The data are fetched from the R package smcure (5 kB), or read from the folder named by the
environment variable ``CAUSALRM_DATA``.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import causalrm as crm

melanoma = crm.datasets.fetch_e1684()
melanoma = melanoma.dropna(subset=["age", "sex"])  # one row is incomplete
melanoma.groupby("treatment", observed=True).agg(
    patients=("event", "size"),
    relapses=("event", "sum"),
    median_age_centred=("age", "median"),
    women=("sex", lambda s: (s == "female").mean()),
    longest_follow_up=("time", "max"),
).round(2)

# %%
# Models
# ------
# Treatment may speed up or slow down time (``phi``), raise or lower the hazard (``lam``), or bend
# the curve (``gamma``). ``lam="treatment"`` has no intercept: the hazard's level in the control
# arm is then fixed by ``phi`` and ``gamma``. All eight models below have the same rows and can be
# compared by AIC and BIC; kappa is the shape, and where it is below 0 a fraction is cured.

roles = {"time": "time", "event": "event"}
models = {
    "phi": {"phi": "treatment"},
    "lam": {"lam": "treatment"},
    "phi, gamma": {"phi": "treatment", "gamma": "treatment"},
    "lam, gamma": {"lam": "treatment", "gamma": "treatment"},
    "phi, lam": {"phi": "treatment", "lam": "treatment"},
    "none": {},
    "Weibull, phi": {"phi": "treatment", "kappa": "weibull"},
    "log-logistic, phi": {"phi": "treatment", "kappa": "loglogistic"},
}
fits = {
    name: crm.SurvivalRegression(**options).fit(melanoma, **roles)
    for name, options in models.items()
}
criteria = ["n_params", "loglik", "aic", "bic", "kappa"]
rows = {name: [getattr(fit.result_, c) for c in criteria] for name, fit in fits.items()}
table = pd.DataFrame.from_dict(rows, "index", columns=criteria)
table.rename_axis("treatment in").round(3)

# %%
# The Weibull distribution is out of the question, and so is the log-logistic: with kappa free, the
# likelihood is far higher. Whether treatment acts through phi or through lambda the criteria
# cannot tell. Nested models are compared by a likelihood-ratio test.

for small, big in (
    ("none", "lam"),
    ("lam", "lam, gamma"),
    ("phi", "phi, lam"),
    ("lam", "phi, lam"),
):
    print(f"{small:5} in {big:10}: {fits[big].result_.lr_test(fits[small].result_)}")

# %%
# The cured fraction
# ------------------
# With kappa below 0 the cumulative hazard has an upper end, and a patient escapes with probability
# :math:`\exp\{\lambda(\kappa + 1)/\kappa\}`. It depends on the covariates through lambda only: a
# model with treatment in phi alone gives both arms the same fraction whatever the data say.
# A question about cure therefore needs treatment in ``lam``.

fit = fits["lam, gamma"]
arms = pd.DataFrame({"treatment": ["control", "interferon"]}, index=["control", "interferon"])
cured = pd.concat(
    {
        name: fits[name].predict_cure(arms, ci=True)
        for name in ("phi", "lam", "lam, gamma", "phi, lam")
    },
    names=["treatment in", "arm"],
)
cured.round(3)

# %%
# Averaged over the patients of the trial:

print(fit.result_.cure_fraction())

# %%

fit.summary()

# %%
# Model against data, by arm; and residuals, whose cumulative hazard is the diagonal when the model
# holds.

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained")
fit.plot(by="treatment", ax=left)
left.set_xlabel("Years since randomisation")
left.set_ylabel("Relapse-free survival")
fit.plot.cox_snell(ax=right)

# %%
# What supports the plateau?
# --------------------------
# A cured fraction is a statement about times after the end of the trial. Three numbers say how
# near the end of the trial came to it: the share of the relapses expected in those not cured that
# the model places within the follow-up, the patients still under observation after the last
# relapse, and Maller and Zhou's alpha, which is small when the stretch without events at the end
# is long for the spacing of the events before it.

seen = fit.result_.diagnostics
pd.Series(
    {
        "last relapse (years)": melanoma.loc[melanoma["event"] == 1, "time"].max(),
        "longest follow-up (years)": melanoma["time"].max(),
        "patients observed after the last relapse": seen["censored_after_last_event"],
        "share of expected relapses within follow-up": seen["follow_up_share"],
        "Maller and Zhou's alpha": seen["maller_zhou_alpha"],
    }
).round(2).to_frame("")

# %%
# The share is reassuring, but it takes the model's word for what comes later. Alpha does not, and
# it is far from small: the stretch without relapses is not long for what came before it. The
# summary therefore calls the follow-up doubtful.
#
# Sensitivity
# -----------
# So far the level of the hazard was tied to the other parameters (lambda has no intercept). Two
# wider or different models do not tie it. The first frees lambda's intercept, with kappa still
# free; the second is the Burr distribution, kappa = 0, in which everybody relapses in the end.

freed = crm.SurvivalRegression(lam="1 + treatment", gamma="treatment").fit(melanoma, **roles)
burr = crm.SurvivalRegression(phi="treatment", gamma="treatment", kappa="burr").fit(
    melanoma, **roles
)
crm.table(fit, freed, burr, names=["tied", "lambda free", "Burr (no cure)"], statistic="interval")

# %%

print("tied:       ", fit.result_.cure_fraction())
print("lambda free:", freed.result_.cure_fraction() if freed.result_.cure else "no cured fraction")
print("AIC of the three:", [round(f.result_.aic, 1) for f in (fit, freed, burr)])

# %%
# Freed, kappa goes to the border between cure and no cure, and the interval of the cured fraction
# covers nearly everything. The model without any cure fits no worse than the one with it. The next
# figure shows why: within the trial the curves are close; after it they part.

horizon = np.linspace(0, 30, 301)
figure, ax = plt.subplots(figsize=(7.2, 4.4), layout="constrained")
ax.axvspan(0, melanoma["time"].max(), color="0.95", zorder=0)
ax.text(0.3, 0.03, "follow-up", color="0.35")
for (name, model), style in zip(
    {"cure model": fit, "Burr, no cure": burr}.items(), ("-", "--"), strict=True
):
    curves = model.predict_survival(arms, horizon)
    for arm, colour in zip(arms.index, ("#0072B2", "#D55E00"), strict=True):
        ax.plot(horizon, curves.loc[arm], style, color=colour, label=f"{arm}, {name}")
ax.set(xlim=(0, 30), ylim=(0, 1.02))
ax.set_xlabel("Years since randomisation")
ax.set_ylabel("Relapse-free survival")
ax.legend(frameon=False)

# %%
# A second check: pretend that the trial had ended earlier, and see whether the answer moves.

moved = {}
for end in (4, 5, 6, 7, 8, 10):
    early = melanoma.assign(
        event=melanoma["event"].where(melanoma["time"] <= end, 0),
        time=melanoma["time"].clip(upper=end),
    )
    tied = crm.SurvivalRegression(lam="treatment", gamma="treatment").fit(early, **roles).result_
    free = (
        crm.SurvivalRegression(lam="1 + treatment", gamma="treatment").fit(early, **roles).result_
    )
    cure, test = tied.cure_fraction(), free.lr_test(tied)
    moved[end] = {
        "cured (tied)": cure.estimate,
        "conf_low": cure.conf_low,
        "conf_high": cure.conf_high,
        "cured (free)": free.cure_fraction().estimate if free.cure else 0.0,
        "kappa (free)": free.kappa,
        "p, tied in free": test.p_value,
    }
pd.DataFrame(moved).T.rename_axis("end (years)").round(3)

# %%
# The tied model gives nearly the same fraction whenever the trial ends, long before there is a
# plateau to be seen. That is stability of an assumption, not of a finding: with lambda tied,
# kappa is read off the steep first years, where most relapses are, and the plateau follows from
# it. The free model, which is not bound in this way, finds next to none at any end, and the
# earlier the end, the more clearly the likelihood prefers it.

# %%
# Predictions within the data
# ---------------------------
# What is well determined is survival within the trial. It hardly depends on which of the models is
# used, and its intervals are narrow enough to be of use.

times = [1, 3, 5, 8]
within = pd.concat(
    {
        name: model.predict_survival(arms, times, ci=True).rename_axis(["arm", "years"])
        for name, model in {"cure model": fit, "Burr, no cure": burr}.items()
    },
    names=["model"],
)
within.round(3)

# %%
# Whether the arms differ is asked across both parameters at once, since treatment is in both:

print(fit.result_.wald_test("treatment"))
print(fit.result_.lr_test(fits["none"].result_))

# %%
# With interferon fewer patients had relapsed at every time observed. That a part of them, or of
# the controls, will never relapse is more than the trial can say: it needs the assumption that
# ties the level of the hazard to its shape, and a model without any cure describes the data as
# well. What the curves do beyond the last follow-up is the model's word and not the trial's.
