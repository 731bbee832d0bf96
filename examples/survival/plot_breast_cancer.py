"""
Breast cancer: what does hormone therapy change?
================================================

The German Breast Cancer Study Group followed women with node-positive breast cancer after
surgery, until the cancer returned or they died. Some of them were given hormone therapy. Three
questions: what shape does the hazard of recurrence have, does therapy slow time or bend the shape,
and how much recurrence-free time would be gained if all women were treated?
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import causalrm as crm

df = crm.datasets.load_gbsg2()
df = df.assign(years=df["time"] / 365.25)
roles = {"time": "years", "event": "event"}
df.groupby("hormone", observed=True).agg(
    women=("event", "size"),
    events=("event", "sum"),
    median_age=("age", "median"),
    postmenopausal=("menopause", lambda m: (m == "post").mean()),
    grade_III=("tumor_grade", lambda g: (g == "III").mean()),
    median_nodes=("nodes", "median"),
    median_progesterone=("progesterone", "median"),
).round(2)

# %%
# Therapy was randomised for some of the women and chosen for others, and those treated were older.
# The comparison is therefore adjusted for what is known to matter: age, menopause, grade and size
# of the tumour, and, on a log scale because their effects level off, the number of positive nodes
# and the progesterone receptor.

others = "log(nodes) + log(progesterone + 1) + tumor_grade + tumor_size + age + menopause"

# %%
# Which hazard shape?
# -------------------
# Familiar families are points of one distribution: ``select`` fits each of them, once with all
# covariates in the speed of time (``phi``, accelerated failure time) and once in the level of the
# hazard (``lambda``, proportional hazards). "free" estimates kappa, "full" kappa and the level of
# lambda.

phi = f"hormone + {others}"
choice = crm.survival.select(
    df,
    phi,
    **roles,
    families=["exponential", "weibull", "loglogistic", "burr", "free", "full"],
    structures=["aft", "ph"],
)
choice.summary()

# %%
# Likelihood-ratio tests of the nested pairs among them. They are ordinary ones, since kappa = 1
# (Weibull) and kappa = 0 (log-logistic, Burr) lie inside the range of kappa, except where the
# smaller model leaves a parameter of the larger unidentified; then no p-value is given.

tests = choice.tests
tests = tests[(tests["small_structure"] == "aft") & (tests["large_structure"] == "aft")]
tests = tests.set_index(["small_family", "large_family"])
tests[["statistic", "df", "p_value", "reason"]].round(4)

# %%
# The most flexible member is needed. The risk of recurrence climbs steeply, turns, and then falls
# slowly for years, which no Weibull model can say. The hazard at the mean covariates of each
# group, with the events as marks at the foot:

fit = crm.SurvivalRegression(phi=phi, lam="1").fit(df, **roles)
ax = fit.plot.hazard(by="hormone")
ax.set_xlabel("Years since surgery")
ax.set_ylabel("Recurrence or death, per year")
print(f"{fit.result_.hazard_shape}; turns after {fit.result_.turning_point:.1f} years")

# %%
# Scale or shape?
# ---------------
# Where does therapy act? It can slow time (``phi``), lower the hazard by a factor (``lam``), bend
# the shape (``gamma``), or do two of these at once. The other covariates stay in ``phi``.

places = {
    "none": {"phi": others, "lam": "1"},
    "phi": {"phi": phi, "lam": "1"},
    "lam": {"phi": others, "lam": "1 + hormone"},
    "gamma": {"phi": others, "lam": "1", "gamma": "hormone"},
    "phi, gamma": {"phi": phi, "lam": "1", "gamma": "hormone"},
    "lam, gamma": {"phi": others, "lam": "1 + hormone", "gamma": "hormone"},
    "phi, lam": {"phi": phi, "lam": "1 + hormone"},
}
fits = {name: crm.SurvivalRegression(**o).fit(df, **roles).result_ for name, o in places.items()}
criteria = ["n_params", "loglik", "aic", "bic", "kappa"]
rows = {name: [getattr(r, c) for c in criteria] for name, r in fits.items()}
where = pd.DataFrame.from_dict(rows, "index", columns=criteria)
where.rename_axis("therapy in").round(3)

# %%
# First a joint test that therapy does nothing, in whichever parameter; then whether the shape
# needs it once time does, and whether time needs it once the shape does.

print("joint Wald test:   ", fits["phi, gamma"].wald_test("hormone"))
print("shape, given time: ", fits["phi, gamma"].lr_test(fits["phi"]))
print("time, given shape: ", fits["phi, gamma"].lr_test(fits["gamma"]))
print("hazard, given time:", fits["phi, lam"].lr_test(fits["phi"]))

# %%
# Therapy slows time; nothing suggests that it changes the shape as well, and the model above, with
# therapy in phi alone, is kept. (That does not prove the shape untouched: the interval of its
# coefficient shows what else would go with the data.) A coefficient in phi is the logarithm of the
# speed of time, and its negative that of the factor by which times are stretched:

stretch = fit.contrast({("phi", "hormone[T.yes]"): -1}, name="log stretch of time")
print(stretch)
print(
    f"times multiplied by {np.exp(stretch.estimate):.2f} "
    f"({np.exp(stretch.conf_low):.2f} to {np.exp(stretch.conf_high):.2f})"
)

# %%

crm.table(
    choice.results["weibull", "aft"],
    fit,
    fits["phi, gamma"],
    names=["Weibull", "flexible", "+ shape"],
    statistic="interval",
)

# %%
# Does the model hold?
# --------------------
# The summary states each assumption with what was seen of it.

fit.summary()

# %%

figure, axes = plt.subplots(2, 2, figsize=(10.5, 8.4), layout="constrained")
fit.plot(by="hormone", ax=axes[0, 0])
fit.plot(by="tumor_grade", ax=axes[0, 1])
fit.plot.cox_snell(ax=axes[1, 0])
fit.plot.forest(ax=axes[1, 1])
for ax in axes[0]:
    ax.set_xlabel("Years since surgery")
    ax.set_ylabel("Recurrence-free survival")

# %%
# The curve of grade III falls faster than the model at first and slower later. If the grade bent
# the shape of the hazard, it would belong into gamma too. The data do not ask for it, and the
# effect of therapy would stay what it is:

bent = crm.SurvivalRegression(phi=phi, lam="1", gamma="tumor_grade").fit(df, **roles).result_
print("grade in the shape:", bent.lr_test(fit.result_))
print(bent.contrast({("phi", "hormone[T.yes]"): -1}, name="log stretch of time, then"))

# %%
# Martingale residuals show a covariate on the wrong scale as a trend in their means. The number of
# nodes, which is in the model as a logarithm, shows none.

residual = fit.residuals(df, kind="martingale")
nodes = pd.cut(df["nodes"], [0, 1, 2, 3, 5, 8, 12, df["nodes"].max()])
residual.groupby(nodes, observed=True).agg(["size", "mean", "sem"]).round(3)

# %%
# Women who were not in the fit: the model is fitted to one half and judged on the other, by the
# concordance, by the Brier score (against that of Kaplan-Meier, and as the share taken off it),
# and by the risks that it gave for three years against those observed.

half = np.random.default_rng(2012).permutation(len(df)) % 2 == 0
trained = crm.SurvivalRegression(phi=phi, lam="1").fit(df[half], **roles)
print(crm.survival.concordance(trained, df[~half], tau=5))
score = crm.survival.brier_score(trained, df[~half], times=[1, 2, 3, 4, 5]).to_frame()
at_times = score[score["group"] == "at time"]
at_times.pivot(index="time", columns="term", values="estimate").round(3)

# %%

calibrated = crm.survival.calibration(trained, df[~half], time=3, groups=6)
print(calibrated.test)
ax = calibrated.plot()
ax.set_xlabel("Predicted risk of recurrence within three years")
ax.set_ylabel("Observed")

# %%
# What would therapy for all change?
# ----------------------------------
# The coefficient speaks of two women alike in all covariates. The question of policy is marginal:
# the survival of these women if all had been treated, against that if none had. The g-formula
# averages the model's predictions over their covariates. AIPW adds what the outcomes say about the
# errors of these predictions, with a model for who was treated and one for censoring; it is right
# if the survival model is, or if both of these are.

asked = {"treatment": "hormone", "times": np.arange(0.5, 6.01, 0.25), "rmst": [3, 5]}
gformula = crm.survival.standardized_contrast(fit, df, method="gformula", **asked)
aipw = crm.survival.standardized_contrast(fit, df, method="aipw", **asked)
rows = {
    (name, horizon): vars(result.contrast(rmst=horizon))
    for name, result in (("g-formula", gformula), ("AIPW", aipw))
    for horizon in (3, 5)
}
gained = pd.DataFrame(rows).T[["estimate", "std_error", "conf_low", "conf_high", "p_value"]]
gained.rename_axis(["years gained by", "within"]).astype(float).round(3)

# %%

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.3), layout="constrained")
aipw.plot.survival(ax=left)
left.set_title("Survival, AIPW")
gformula.plot(ax=right, label="g-formula")
aipw.plot(ax=right, label="AIPW")
right.set_title("Difference")
for ax in (left, right):
    ax.set_xlabel("Years since surgery")

# %%
# Two methods that err in different ways agree on what is gained in five years. They part in the
# timing: by the doubly robust curve therapy takes a while to work, and then does more than the
# model allows. What both rest on, and what could refute it, stands in the summary.

few = {"treatment": "hormone", "times": [1, 3, 5], "rmst": [3, 5], "method": "aipw"}
crm.survival.standardized_contrast(fit, df, **few).summary()

# %%
# One diagnostic there is not reassuring: the residuals of the censoring model, by default a
# Weibull regression, leave their limit. Most women were censored by the end of the study, with a
# hazard that soars, as that of the exponential-power distribution does. It mends the residuals,
# and the answer stays.

censoring = crm.SurvivalRegression(phi=phi, gamma="hormone", kappa="exponential_power")
again = crm.survival.standardized_contrast(fit, df, censoring=censoring, **few)
print("Weibull:          ", aipw.contrast(rmst=5))
print("exponential power:", again.contrast(rmst=5))
print(next(a.diagnostic for a in again.assumptions if a.name == "models"))

# %%
# lifelines
# ---------
# Where the models coincide, so do the packages. A Weibull model with therapy in scale and shape;
# in lifelines' notation the scale is 1/phi, so that the signs differ.

from lifelines import KaplanMeierFitter, WeibullAFTFitter

ours = crm.SurvivalRegression(phi=f"hormone + {others}", gamma="hormone", kappa="weibull")
ours.fit(df, **roles)
theirs = WeibullAFTFitter().fit(
    df, "years", "event", formula=f"hormone + {others}", ancillary="hormone"
)
beside = ours.to_frame().set_index(["parameter", "term"])[["estimate", "std_error"]]
sign = np.where(theirs.params_.index.get_level_values(0) == "lambda_", -1, 1)
beside["lifelines"] = sign * theirs.params_.to_numpy()
beside["lifelines se"] = theirs.standard_errors_.to_numpy()
beside.round(4)

# %%

print(f"log-likelihood: {ours.result_.loglik:.4f}, lifelines {theirs.log_likelihood_:.4f}")

# %%
# Any plot takes an Axes and returns it, so that Kaplan-Meier curves of lifelines can be laid over
# ours. Here they show how the Weibull and the flexible model differ.

figure, ax = plt.subplots(figsize=(7, 4.4), layout="constrained")
observed = KaplanMeierFitter(label="Kaplan-Meier (lifelines)").fit(df["years"], df["event"])
observed.plot_survival_function(ax=ax, color="0.45", linewidth=1.0)
grid = np.linspace(0, 7, 141)
for name, model, style in (("flexible", fit, "#0072B2"), ("Weibull", ours, "#D55E00")):
    ax.plot(grid, model.predict_survival(df, grid).mean(), style, linewidth=2.0, label=name)
ax.set(xlim=(0, 7), ylim=(0, 1.02))
ax.set_xlabel("Years since surgery")
ax.set_ylabel("Recurrence-free survival")
ax.legend(frameon=False)
