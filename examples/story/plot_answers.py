"""
From a log of answers to a decision
===================================

A help desk has a log: questions, the answers that were sent, how they were rated, and when the same
person complained next. It wants to know which answer to send. Between the log and that decision
stand six questions, and a capability of this package for each:

1. What would the rating be without the waiting time that everybody knows distorts it?
2. Which of two answers is better, in the form that fine-tuning tools read?
3. Does the reward follow what makes an answer good, or its style?
4. With what probability is one answer better than another?
5. Which part of an answer moves that probability?
6. How much longer until the next complaint?

The log is **simulated**, so that after each step the decision can be held against the truth. The
hand-overs are data frames with documented columns; nothing is converted by hand.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import causalrm as crm
from causalrm import augment
from causalrm.calibration import TemperatureScaling

log, truth = crm.datasets.make_answer_log(3000, rng=1)
log.drop(columns="answer").head(4).round(1)

# %%
# The decision is which of eight new answers to a question to send; their style says nothing of
# their quality. Regret is the true reward that a choice gives away, here of 300 questions. What
# customers truly value is worth 0 to 6 points.

new = truth.candidates(300, rng=7)
new["true"] = truth.reward(new["query"], new["answer"])
steps = []


def judge(step, reward):
    """Regret of the best of eight by a reward, with its standard error over questions."""
    frame = new.assign(reward=np.asarray(reward))
    best = frame.loc[frame.groupby("question")["reward"].idxmax()].set_index("question")["true"]
    regret = frame.groupby("question")["true"].max() - best
    steps.append((step, regret.mean(), regret.sem()))
    return best


random = judge("an answer at random", np.random.default_rng(0).random(len(new)))

# %%
# 1  Without the waiting time
# ---------------------------
# Who has waited long rates lower. And when few people wait, agents write longer and politer
# answers, so that raw ratings pay for style. The waiting time was fixed before the answer was
# written; answers of one agent depend on one another.

encoder = crm.text.HashedText(384, 0)
roles = {
    "outcome": "rating", "text": "answer", "confounders": ["wait"], "cluster": "agent",
    "timing": {"wait": "pre"},
}  # fmt: skip
raw = crm.DeconfoundedReward("ignore", encoder=encoder).fit(log, **roles)
deconfounded = crm.DeconfoundedReward("plr", encoder=encoder).fit(log, **roles)
judge("raw ratings", raw.predict_reward(new)["reward"])
judge("deconfounded", deconfounded.predict_reward(new)["reward"])
effect = deconfounded.to_frame()[["term", "estimate", "std_error", "conf_low", "conf_high"]]
effect.assign(truth=truth.wait_effect).round(3)

# %%
deconfounded.plot()

# %%
# 2  Pairs
# --------
# Answers to the same question, ordered by the deconfounded rating: the columns are those that
# fine-tuning tools read.

pairs = deconfounded.to_pairs(log, prompt="query", min_margin=1.5, max_pairs=100)
pairs.drop(columns=["chosen", "rejected"]).head(3).round(2)

# %%
# 3  Causes, not style
# --------------------
# Raters also gave points for style itself, which no adjustment for waiting takes away. An oracle
# that edits one cause at a time makes causal pairs; answers beside the wrong question make ties.
# Here the oracle works by rules, with a language model it would be
# :class:`~causalrm.augment.LLMOracle`.

made = crm.CausalAugmenter(augment.RuleOracle(leak=0.3), n_attributes=1).generate(
    pairs.sample(1200, random_state=0), query="prompt"
)
made.groupby("kind").size().rename("pairs").reset_index()

# %%

columns = {"query": "prompt", "chosen": "chosen", "rejected": "rejected"}
plain = crm.RobustRewardModel(encoder, penalty=0.3, drop_attributes=False)
plain.fit(pairs, **columns)
robust = crm.RobustRewardModel(encoder, tie_weight=3, penalty=0.3, drop_attributes=False)
robust.fit(pairs, made, **columns)
judge("reward model of pairs", plain.reward(new, query="query", answer="answer"))
sent = judge("+ causal and neutral pairs", robust.reward(new, query="query", answer="answer"))
attributes = truth.measure(new["query"], new["answer"])
slopes = {
    name: np.linalg.lstsq(
        np.column_stack([np.ones(len(new)), attributes]), reward, rcond=None
    )[0][1:]
    for name, reward in {
        "raw ratings": raw.predict_reward(new)["reward"],
        "deconfounded": deconfounded.predict_reward(new)["reward"],
        "robust": robust.reward(new, query="query", answer="answer"),
        "truth": new["true"],
    }.items()
}  # fmt: skip
slopes = pd.DataFrame(slopes, index=attributes.columns)
slopes /= slopes.iloc[:5].mean()  # relative to the mean of the causes

ax = plt.figure(figsize=(6.4, 4.0), layout="constrained").add_subplot()
colors = dict(zip(slopes, ["#767676", "#56B4E9", "#009E73", "#000000"], strict=True))
for i, name in enumerate(slopes):
    marker = "D" if name == "truth" else "o"
    ax.plot(
        slopes[name], np.arange(10) + 0.15 * (i - 1.5), marker, color=colors[name], label=name
    )  # fmt: skip
ax.axhline(4.5, color="#767676", linewidth=1)
ax.axvline(0, color="#767676", linewidth=0.8)
ax.set_yticks(range(10), slopes.index)
ax.invert_yaxis()
ax.set_xlabel("Slope of the reward (mean of the five causes = 1)")
ax.spines[["top", "right"]].set_visible(False)
ax.grid(axis="y", color="#E3E3E3", linewidth=0.6)
legend = ax.legend(frameon=False, fontsize="small")

# %%
# 4  A probability that can be believed
# -------------------------------------
# Certain causal pairs have stretched the scale of the reward. Experts judge 1,000 pairs of new
# answers; half of them set a temperature, the other half says whether the probabilities hold.

judged = truth.candidates(1000, 2, rng=11)
a, b = (judged.iloc[side::2].reset_index(drop=True) for side in (0, 1))
duels = pd.DataFrame({"prompt": a["query"], "chosen": a["answer"], "rejected": b["answer"]})
won = truth.judge(duels["prompt"], duels["chosen"], duels["rejected"], rng=12)
p = robust.predict_proba(duels).to_numpy()
scaling = TemperatureScaling().fit(p[:500], won[:500])
probability = {"as fitted": p[500:], "with temperature": scaling.predict(p[500:])}
reports = {name: crm.calibration_report(won[500:], q) for name, q in probability.items()}
measures = ("smooth_ece", "calibration_slope", "auc", "log_loss")
calibration = pd.concat(
    {name: pd.DataFrame({m: report[m] for m in measures}).T for name, report in reports.items()}
)
calibration[["estimate", "conf_low", "conf_high"]].astype(float).round(3)

# %%

fig, axes = plt.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
for ax, (name, report) in zip(axes, reports.items(), strict=True):
    report.plot(ax=ax)
    ax.set_title(name)

# %%
# 5  Which part of the answer?
# ----------------------------
# One answer, taken apart. Its value is the calibrated probability that it beats a fixed rival, and
# for comparison the rating that raw ratings predict. Courtesy, filler and the closing line should
# not count; the share of neutral parts says how much they do.

question, rival = "How high is Mount Everest?", "Everest is 7610 metres high."
parts = [
    crm.Component("courtesy", "Thank you for your kind question.", role="neutral"),
    crm.Component("fact", "Everest is 8849 metres high."),
    crm.Component(
        "reason", "Everest is that high because two continental plates collide below it."
    ),
    crm.Component("detail", "Everest belongs to the Himalayas."),
    crm.Component("filler", "There are many things that one could say here.", role="neutral"),
    crm.Component("closing", "It is a pleasure to assist you.", role="neutral"),
]
places = "{courtesy} {fact} {reason} {detail} {filler} {closing}"
template = crm.PromptTemplate(f"Answer: {places}", parts)


def beats(text):
    """Calibrated probability that the answer beats the rival."""
    gap = robust.reward([text, rival], [question] * 2)
    return float(scaling.predict([1 / (1 + np.exp(gap[1] - gap[0]))])[0])


def rating(text):
    """Raw rating that is predicted for the answer."""
    return float(raw.predict_reward(pd.DataFrame({"answer": [text]}))["reward"].iloc[0])


shapley = {
    name: crm.PromptShapley().fit(template, crm.ScoreValue(score))
    for name, score in (("raw rating", rating), ("probability to win", beats))
}
fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), layout="constrained")
for ax, (name, found) in zip(axes, shapley.items(), strict=True):
    found.plot(ax=ax)
    ax.set_title(name)

# %%

noise = {name: found.result_.token_noise().share.estimate for name, found in shapley.items()}
pd.Series(noise, name="share of neutral parts").round(3).to_frame()

# %%
# 6  Until the next complaint
# ---------------------------
# The log of the following month says when a complaint came, or that there was none within 40 days.
# The reward is one more column there; it has not seen these answers, or its own errors would make
# it look as if it mattered less. Rewards compare answers to the same question, so the question
# enters too. The data choose the shape of the hazard. Coefficients are effects on speed: a negative
# one delays the complaint.

later, _ = crm.datasets.make_answer_log(3000, rng=2)
later["reward"] = robust.reward(later, query="query", answer="answer") / scaling.temperature_
survival = crm.SurvivalRegression(phi="reward + wait + query").fit(
    later, time="days", event="complaint", cluster="agent"
)
shown = survival.to_frame().query("~term.str.startswith('query')", engine="python")
shown[["parameter", "term", "estimate", "std_error", "conf_low", "conf_high"]].round(3)

# %%
# What would the best of eight answers change, against one at random? The gain in reward gives a
# ratio of times, and the expected days without a complaint within 40.

answers = new.assign(
    reward=robust.reward(new, query="query", answer="answer") / scaling.temperature_,
    wait=later["wait"].median(),
)
best = answers.loc[answers.groupby("question")["reward"].idxmax()]
gain = best["reward"].mean() - answers["reward"].mean()
later = survival.contrast({("phi", "reward"): -gain})
true_gain = truth.log_time_ratio * (best["true"].mean() - answers["true"].mean())
days = [survival.predict_rmst(rows, 40).mean().iloc[0] for rows in (answers, best)]
true_days = [truth.days(rows["query"], rows["answer"]).mean() for rows in (answers, best)]
outcome = pd.DataFrame(
    {
        "estimate": [np.exp(later.estimate), *days],
        "conf_low": [np.exp(later.conf_low), np.nan, np.nan],
        "conf_high": [np.exp(later.conf_high), np.nan, np.nan],
        "truth": [np.exp(true_gain), *true_days],
    },
    index=["time ratio", "days of 40, at random", "days of 40, best of eight"],
)
outcome.round(2)

# %%
# The time ratio falls short of the truth a little, because the reward is measured with error. The
# share of answers without a complaint, as predicted for both ways to choose:

ax = plt.figure(figsize=(6.4, 3.6), layout="constrained").add_subplot()
t = np.linspace(0.5, 40, 80)
for name, rows, color in (
    ("best of eight", best, "#0072B2"), ("at random", answers, "#767676"),
):  # fmt: skip
    ax.plot(t, survival.predict_survival(rows, t).mean(), color=color, label=name)
ax.set(xlabel="Days", ylabel="Share without a complaint", ylim=(0, 1), xlim=(0, 40))
ax.spines[["top", "right"]].set_visible(False)
legend = ax.legend(frameon=False)

# %%
# What each step changed
# ----------------------
# Regret is in points of true reward, with 95 % intervals over the 300 questions. Leaving out what
# waiting does to ratings removes most of the regret that raw ratings cause. Pairs alone give some
# of it back: a pair says less than two ratings, and style is still in it. Causal and neutral pairs
# take style out, and more than make up for it.

table = pd.DataFrame(steps, columns=["choice by", "regret", "std_error"])
table["conf_low"] = table["regret"] - 1.96 * table["std_error"]
table["conf_high"] = table["regret"] + 1.96 * table["std_error"]
table.round(3)

# %%

ax = plt.figure(figsize=(6.4, 2.9), layout="constrained").add_subplot()
place = np.arange(len(table))
ax.errorbar(table["regret"], place, xerr=1.96 * table["std_error"], fmt="o", color="#0072B2")
ax.set_yticks(place, table["choice by"])
ax.invert_yaxis()
ax.set_xlim(left=0)
ax.set_xlabel("Regret of the best of eight (points of true reward)")
ax.grid(axis="x", color="#E3E3E3", linewidth=0.6)
ax.spines[["top", "right"]].set_visible(False)
