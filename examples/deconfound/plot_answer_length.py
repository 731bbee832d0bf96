"""
Does a longer answer win because it is better?
==============================================

Judges of language models' answers like length. AlpacaEval has the judgments of one judge on twelve
models against one baseline, with the lengths of all answers; some of the models are the same model
told to be concise, or verbose. How much of a preference is length, and how do the models rank
without it?

The data are those of AlpacaEval's repository (CC BY-NC 4.0: not for commercial use), read from the
folder named by the environment variable ``CAUSALRM_DATA``, or downloaded.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import causalrm as crm

judged = crm.datasets.fetch_alpaca_length()
judged = judged[judged["model"] != "NullModel"]  # one constant answer, written to fool the judge
judged = judged.assign(
    longer=np.tanh(np.log(judged["len_output_2"] / judged["len_output_1"])),
    win=judged["outcome"],
)
judged.groupby("model").agg(
    preferred=("win", "mean"), length=("len_output_2", "median"), longer=("longer", "mean")
).sort_values("preferred", ascending=False).round(3)

# %%
# What is identified, and what is not
# -----------------------------------
# The length of an answer is a part of the answer. A longer answer may be better *because* it
# says more, and no statistic of these rows can separate that from a judge who pays for length
# alone. What can be asked is narrower: how does the preference differ between answers of
# different length *by the same kind of model to the same instruction*? That is a description of
# the judge, and it becomes an effect only under the assumption that, within those, length is not
# itself a sign of quality.
#
# The log gives three comparisons, in increasing order of credibility:
#
# - across all rows, better models write more;
# - within a model, some instructions make answers long, and may be answered worse or better;
# - between the same model told to be concise, plain or verbose, on the same instruction, what
#   moves length is an instruction to the model, close to an experiment: but "be concise" also
#   changes what is said.

family = judged["model"].str.replace(r"_(concise|verbose)$", "", regex=True)
told = judged["model"].str.extract(r"_(concise|verbose)$")[0].fillna("plain")
judged = judged.assign(family=family, told=told)
three = judged[judged["family"].isin(["gpt-3.5-turbo-1106", "alpaca-7b"])].reset_index(drop=True)
three = three.assign(
    strong=(three["family"] == "gpt-3.5-turbo-1106").astype(float),
    concise=(three["told"] == "concise").astype(float),
    verbose=(three["told"] == "verbose").astype(float),
)
three.pivot_table(index="family", columns="told", values=["longer", "win"]).round(3)

# %%
# Being told to be concise or verbose is the instrument, the relative length the confounder, and
# which model answers the "text". Relative length is declared as a part of the text, which it is:
# what is estimated is a reward with that part taken out on purpose. The instruction is the
# cluster.

roles = {
    "outcome": "win",
    "text": ["strong"],
    "confounders": ["longer"],
    "cluster": "instruction",
    "timing": {"longer": "text"},
}
with warnings.catch_warnings():
    warnings.simplefilter("ignore", crm.IdentificationWarning)  # it repeats what is said above
    fits = {
        "ignore": crm.DeconfoundedReward("ignore").fit(three, **roles),
        "residualise": crm.DeconfoundedReward("residualise").fit(three, **roles),
        "given the model": crm.DeconfoundedReward("plr").fit(three, **roles),
        "told to be concise or verbose": crm.DeconfoundedReward("iv").fit(
            three, **roles, instruments=["concise", "verbose"]
        ),
        "beside each instruction's effect": crm.DeconfoundedReward("fixed_effects").fit(
            three, **roles, absorb="instruction"
        ),
    }
rows = []
for name, fit in fits.items():
    for row in fit.to_frame().itertuples():
        if row.term != "Intercept":
            rows.append((name, row.term, row.estimate, row.conf_low, row.conf_high))
found = pd.DataFrame(rows, columns=["way", "term", "estimate", "conf_low", "conf_high"])
found.round(3)

# %%
# The judge pays for length in every comparison. The slope is read on the scale of ``longer``:
# from 0 (as long as the baseline's answer) to 0.6 (twice as long).

fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.0), layout="constrained", sharey=True)
titles = {"longer": "Preference per unit of relative length", "strong": "GPT-3.5 against Alpaca"}
places = {name: i for i, name in enumerate(fits)}
for ax, (term, title) in zip(axes, titles.items(), strict=True):
    part = found[found["term"] == term]
    y = part["way"].map(places)
    ax.hlines(y, part["conf_low"], part["conf_high"], color="#0072B2", linewidth=1.8)
    ax.plot(part["estimate"], y, "o", color="#0072B2", markersize=5)
    ax.axvline(0, color="#767676", linewidth=1.0, linestyle=(0, (4, 3)))
    ax.set_title(title, fontsize="medium", loc="left")
    ax.set_yticks(range(len(fits)), list(fits))
    ax.set_ylim(len(fits) - 0.5, -0.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel("Share of preference (95% interval)")

# %%
# Are the two instruments of one mind? With two instruments for one effect the Anderson-Rubin set
# is empty where they contradict each other, which would mean that "be concise" or "be verbose"
# changes more than length.

iv = fits["told to be concise or verbose"].result_
{
    "Anderson-Rubin set": [tuple(round(v, 3) for v in s) for s in iv.anderson_rubin()],
    "effective F": iv.diagnostics["first_stage"]["effective_f"].round(1),
}

# %%
# All models, with the slope within models
# ----------------------------------------
# With one column per model as the "text", the reward is the model's preference at the mean
# relative length of the log. It answers "who would win if all wrote equally long?", under the
# slope that is used: additive, and the same for all models. It is not a claim about what models
# would say if they were made to write so.

models = sorted(judged["model"].unique())
columns = {f"is {name}": (judged["model"] == name).astype(float) for name in models[1:]}
wide = judged.assign(**columns)
wide_roles = roles | {"text": list(columns)}
with warnings.catch_warnings():
    warnings.simplefilter("ignore", crm.IdentificationWarning)
    adjusted = crm.DeconfoundedReward("plr").fit(wide, **wide_roles)
    raw = crm.DeconfoundedReward("ignore").fit(wide, **wide_roles)
each = wide.drop_duplicates("model").set_index("model")
ranking = pd.DataFrame(
    {
        "preferred": raw.predict_reward(each)["reward"],
        "at equal length": adjusted.predict_reward(each)["reward"],
        "std. error": adjusted.predict_reward(each)["std_error"],
    }
).sort_values("at equal length", ascending=False)
print(f"slope within models: {adjusted.result_.gamma[0]:.3f}")
ranking.round(3)

# %%
# An adjustment for length should bring the concise and the verbose version of one model
# together. It does bring those of GPT-3.5 closer, but it also turns their order round: the slope
# within models is steeper than the one that being told to write more gives, because within a
# model the longer answers also differ in what was asked. By the standard of the near-experiment
# this adjustment goes too far, and the models that write little are flattered by it.

fig, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
y = np.arange(len(ranking))
ax.hlines(y, ranking["preferred"], ranking["at equal length"], color="#B0B0B0", linewidth=1.5)
ax.plot(ranking["preferred"], y, "o", color="#767676", markersize=5, label="As judged")
ax.errorbar(
    ranking["at equal length"], y, xerr=1.96 * ranking["std. error"], fmt="o", color="#D55E00",
    markersize=5, label="At equal length (95% interval)",
)  # fmt: skip
ax.set_yticks(y, ranking.index)
ax.invert_yaxis()
ax.set_xlabel("Preference over the baseline")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, fontsize="small", loc="lower right")

# %%
# In one sentence: among answers of the same model to the same instructions the longer one is
# preferred, by about as much as the slope above says; whether because it is better or because the
# judge likes length is not in these data. A judge shown answers whose length was changed without
# changing what they say would tell.
