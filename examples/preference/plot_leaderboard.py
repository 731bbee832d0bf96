"""
A leaderboard with honest ranks
===============================

Leaderboards of language models are made from votes: two answers to the same prompt side by side,
and a person says which is better, or that they are alike. The models are then sorted by a
Bradley-Terry strength. A sorted list looks like knowledge about every place in it. How much of it
is? The votes here are real: 8,931 of them, by 124 raters on 59 models and 13 prompts, collected by
llmfao and distributed with evalica (Ustalov 2025). They are fetched (0.5 MB), or read from the
folder named by the environment variable ``CAUSALRM_DATA``.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import causalrm as crm

votes = crm.datasets.fetch_llmfao()
votes.agg({"worker": "nunique", "prompt": "nunique", "left": "nunique", "id": "nunique"})

# %%
# Who votes, and how often
# ------------------------
# Votes are not independent. A rater has a taste, sees the same prompts and the same models again
# and again, and some rated far more than others; and each comparison was shown to several raters.

per_rater = votes["worker"].value_counts()
print(f"votes per rater: median {per_rater.median():.0f}, largest {per_rater.max()}")
print(f"raters of one comparison: {votes.groupby('id')['worker'].nunique().mean():.1f}")
votes["winner"].value_counts(normalize=True).round(3)

# %%
# The usual fit, and one that knows about raters
# ----------------------------------------------
# A tie is half a win for both. The strengths are the same in both fits; what changes is how much
# we may believe of them. The clustered covariance adds up what each rater contributes.

roles = {"a": "left", "b": "right", "outcome": "winner"}
fit = crm.BradleyTerry().fit(votes, **roles, cluster="worker").result_
naive = fit.with_covariance("robust")
ratio = pd.Series(fit.std_error / naive.std_error)
ratio.describe().round(2)

# %%
# For three models in four the standard error grows when raters are taken into account, by up to
# four tenths. One could as well say that a comparison, the same two answers shown to several
# raters, is the cluster. (There are only 13 prompts, too few for a clustered covariance.)

by_id = crm.BradleyTerry().fit(votes, **roles, cluster="id").result_
pd.DataFrame(
    {
        "clusters": {"none": len(votes), "comparison": 2139, "rater": 124},
        "median std. error": {
            "none": np.median(naive.std_error),
            "comparison": np.median(by_id.std_error),
            "rater": np.median(fit.std_error),
        },
    }
).round(3)

# %%
# Votes on the same two answers agree more than votes of the same rater: what is judged is a pair of
# answers, and a model is seen through few of them. Either way the usual standard errors are too
# small. We go on with raters.
#
# The leaderboard
# ---------------
# ``ranking`` has for each model its strength, a quasi standard error, which serves comparisons of
# any two models and not only those with the reference, and the ranks that it may have. The rank
# intervals hold for all models at once: with 95 % confidence none of the 59 is outside its own.

board = fit.ranking()
columns = ["term", "estimate", "quasi_se", "rank", "rank_low", "rank_high", "n"]
board[columns].head(15).round(2)

# %%

fit.plot()

# %%
# Now the same as ranks.

fit.plot.ranks()

# %%
# How much is known
# -----------------
# Of all pairs of models, so many differ beyond doubt, when all are compared at once:

k = len(board)
for name, result in {"votes as independent": naive, "clustered by rater": fit}.items():
    table = result.ranking()
    apart = (k * (k - 1) - (table["rank_high"] - table["rank_low"]).sum()) / (k * (k - 1))
    first = int((table["rank_low"] == 1).sum())
    width = (table["rank_high"] - table["rank_low"] + 1).median()
    print(
        f"{name:22s} {apart:.0%} of pairs told apart; {first} models may be the best; median "
        f"width of a rank interval {width:.0f} of {k}"
    )

# %%
# The groups are runs of neighbours in the list within which no two models are told apart. They
# overlap, because not being told apart is not transitive.

groups = fit.groups()
print(f"{len(groups)} groups; the first: {', '.join(groups[0][:6])}, ... ({len(groups[0])} models)")
pd.DataFrame([[len(g) for g in groups]], index=["models in group"])

# %%
# A question about two named models is another matter: one comparison needs no price for the
# others.

best, second = board["term"][0], board["term"][1]
print(fit.contrast(best, second))
print(fit.win_probability(best, second))

# %%
# Ties
# ----
# Almost four in ten votes are ties. Are the ranks an artefact of counting them as half a win?
# Davidson's model and Rao and Kupper's give a tie a probability of its own. Their strengths are on
# another scale, since they speak of decided votes; what can be compared are ranks.

fits = {"half a win": fit}
for ties in ("davidson", "rao_kupper"):
    fits[ties] = crm.BradleyTerry(ties=ties).fit(votes, **roles, cluster="worker").result_
strengths = pd.DataFrame({name: f.strengths for name, f in fits.items()})
print(strengths.corr("spearman").round(3).to_string())
scale = strengths.std() / strengths["half a win"].std()
print("\nspread against half a win:", scale.round(2).to_dict())

# %%

figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained", sharex=True)
ranks = strengths.rank(ascending=False)
for ax, name in zip(axes, ["davidson", "rao_kupper"], strict=True):
    ax.plot(ranks["half a win"], ranks[name], "o", markersize=3.5)
    ax.plot([1, k], [1, k], color="0.5", linewidth=0.8, zorder=0)
    ax.set_xlabel("Rank, a tie is half a win")
    ax.set_ylabel(f"Rank, {name.replace('_', ' and ').title()}")

# %%
# The order hardly moves. Does the side on which an answer was shown matter?

placed = crm.BradleyTerry(position=True).fit(votes, **roles, cluster="worker").result_
print(placed.contrast({"first": 1}, name="advantage of the left side"))

# %%
# Who beats whom
# --------------
# The twelve strongest, as the chance that the row beats the column, a tie counting half.

fit.plot.win_matrix(top=12)

# %%
# What this rests on
# ------------------
# One strength per model leaves no room for cycles. The deviance between pairs speaks against it
# where it is much larger than its degrees of freedom. With ties as half wins it is not, but that
# deviance is too small by construction, since half wins vary less than wins. The models with a
# probability for each outcome show that something is missing:

for name, f in fits.items():
    d = f.diagnostics
    print(f"{name:12s} deviance {d['deviance']:.0f} on {d['deviance_df']:.0f} degrees of freedom")

# %%
# Part of that is dependence, as votes on the same two answers agree; part may be that some pairs of
# models are tied more often than others of the same gap in strength. The clustered covariance
# allows for both in its intervals. What no vote can show is listed with the fit.

fit.summary()
