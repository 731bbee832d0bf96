"""A small simulated language model: real vocabulary, real log-probabilities, numpy only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrm.llm.function import draw
from causalrm.llm.reply import Prompt, Reply, Request

Floats = npt.NDArray[np.float64]

# Written for this file. The question-and-answer lines teach the model to end "Answer:" with a
# letter or with Yes or No; a few words are not ASCII so that tokens cut characters.
TEXT = """\
The bank lends money to people who pay it back. A person with a steady income pays on time more
often than a person without one. An old debt is a bad sign, and a new debt is a worse one.
The doctor asks every patient about age, weight and blood pressure. A patient who smokes has a
higher risk than a patient who does not smoke. A patient who walks every day has a lower risk.
The nurse writes the answer down: naïve, café, Zürich, Łódź, 東京, 👍 and – now and then – µg.
The hotel is clean and quiet, and the staff is friendly. The room is small, dirty and loud.
A good answer is short and correct. A bad answer is long and wrong. Nobody knows everything.
Question: Does the patient smoke? Choices: A. Yes B. No
Answer: A
Question: Will the person pay the debt? Choices: A. Yes B. No
Answer: B
Question: Is the income above the average? Choices: A. Yes B. No
Answer: B
Question: Is the room clean? Choices: A. Yes B. No
Answer: A
Question: The patient smokes. Is the risk high? Answer with Yes or No.
Answer: Yes
Question: The patient walks every day. Is the risk high? Answer with Yes or No.
Answer: No
Question: Is the staff friendly? Answer with Yes or No.
Answer: Yes
Question: Is the room loud? Answer with Yes or No.
Answer: Yes
Question: What is the probability of an illness? Answer: 0.2
Question: What is the probability that the debt is paid? Answer: 0.7
"""

_WINDOW = 20  # tokens of text over which words are taken to belong together
_PIECES = re.compile(r" ?\w+| ?[^\w\s]|\s")


class SimulatedLanguageModel:
    r"""An n-gram language model over words and bytes, fitted to a short text.

    It is simulated, and knows nothing; but its tokens, their probabilities (which sum to one
    over the vocabulary) and the texts drawn from them are those of a real language model of
    its kind: Witten-Bell interpolation of orders 1 to `order`, tilted by the words of the prompt
    (their smoothed pointwise mutual information with each token in the text), so that every
    known word has an influence. Unknown words are spelt in bytes of UTF-8, so that tokens may
    be parts of characters. Give it to :class:`FunctionModel`, and that to
    :class:`LoopbackServer` if it is to be a service.

    Parameters
    ----------
    text : str, optional
        What to learn from; by default a text of some 200 words.
    order : int, default 3
    tilt : float, default 1
        Weight of the words of the prompt; 0 leaves the n-grams alone.
    seed : int, default 0
        Decides, with the request, what is drawn.

    References
    ----------
    Witten, Bell (1991), doi:10.1109/18.87000, method C.

    Examples
    --------
    >>> from causalrm.llm import FunctionModel
    >>> model = FunctionModel(SimulatedLanguageModel(), name="simulated")
    >>> prompts = [f"The patient {does}. Is the risk high? Answer with Yes or No.\nAnswer:"
    ...            for does in ("smokes", "walks")]
    >>> found = model.choice_probabilities(prompts, ["Yes", "No"])
    >>> found[["probability[Yes]", "mass", "status"]].round(3)
       probability[Yes]   mass status
    0             0.768  0.847     ok
    1             0.715  0.852     ok
    """

    def __init__(
        self, text: str | None = None, *, order: int = 3, tilt: float = 1.0, seed: int = 0
    ) -> None:
        self.order, self.tilt, self.seed = order, tilt, seed
        text = TEXT if text is None else text
        words = sorted(set(_PIECES.findall(text)))
        self.vocabulary = [bytes([i]) for i in range(256)]
        self.vocabulary += [w.encode() for w in words if len(w.encode()) > 1]
        self._index = {token: i for i, token in enumerate(self.vocabulary)}
        counts: dict[tuple[int, ...], Counter[int]] = {}
        tokens = self.encode(text)
        for i, token in enumerate(tokens):
            for n in range(min(order, i + 1)):
                counts.setdefault(tuple(tokens[i - n : i]), Counter())[token] += 1
        self._counts = {
            context: (np.fromiter(c, int), np.fromiter(c.values(), float))
            for context, c in counts.items()
        }
        self._mutual = self._mutual_information(tokens)

    def _mutual_information(self, tokens: list[int]) -> Floats:
        """PMI of a token (row) and one among the next `_WINDOW` (column), shape (V, V)."""
        size = len(self.vocabulary)
        single = np.bincount(tokens, minlength=size) / len(tokens)
        joint = np.zeros((size, size))
        for gap in range(1, _WINDOW + 1):
            np.add.at(joint, (tokens[:-gap], tokens[gap:]), 1.0)
        seen = single > 0
        # As if every token had been followed once by a window of the average kind.
        given = (joint + _WINDOW * single) / (joint.sum(1, keepdims=True) + _WINDOW)
        out = np.zeros((size, size))
        out[:, seen] = np.log(given[:, seen] / single[seen])
        out[:256] = 0.0  # letters, marks and line breaks are no words
        return out

    def encode(self, text: str) -> list[int]:
        """Split a text into tokens: known words with the space before them, else bytes."""
        tokens = []
        for piece in _PIECES.findall(text):
            raw = piece.encode(errors="replace")
            whole = self._index.get(raw)
            tokens += list(raw) if whole is None else [whole]
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """Join tokens; bytes that are no character become the replacement character."""
        return b"".join(self.vocabulary[t] for t in tokens).decode(errors="replace")

    def log_probabilities(self, context: Sequence[int], prompt: Sequence[int] = ()) -> Floats:
        """Log-probability of every token of the vocabulary after `context`, shape (V,).

        `prompt` are the tokens whose words tilt it.
        """
        size = len(self.vocabulary)
        p = np.full(size, 1.0 / size)
        for n in range(min(self.order, len(context) + 1)):
            found = self._counts.get(tuple(context[len(context) - n :]))
            if found is None:
                break
            ids, counts = found
            total = counts.sum() + len(ids)
            p *= len(ids) / total
            p[ids] += counts / total
        words = [t for t in set(prompt) if t >= 256]
        logs: Floats = np.log(p)
        if words:
            logs += self.tilt * self._mutual[sorted(words)].sum(0) / np.sqrt(len(words))
            logs -= np.logaddexp.reduce(logs)
        return logs

    def __call__(
        self,
        prompt: Prompt,
        *,
        max_tokens: int = 16,
        temperature: float = 1.0,
        logprobs: bool = False,
        top_logprobs: int = 0,
        stop: str | Sequence[str] | None = "\n",
        seed: int | None = None,
        replicate: int = 0,
    ) -> Reply:
        """Draw a reply, token by token."""
        text = prompt if isinstance(prompt, str) else _chat(prompt)
        tokens = self.encode(text)
        drawn: list[int] = []
        places: list[dict[str, Any]] = []
        stops = [stop] if isinstance(stop, str) else list(stop or ())
        finish = "length"
        for i in range(max_tokens):
            logs = self.log_probabilities(tokens + drawn, tokens)
            state = {"seed": self.seed if seed is None else seed, "place": i}
            token = draw(np.exp(logs), temperature, Request(text, state, replicate))
            so_far = self.decode([*drawn, token])
            if any(s and s in so_far.lstrip(" \n") for s in stops):
                finish = "stop"
                break
            drawn.append(token)
            top = np.argsort(-logs, kind="stable")[:top_logprobs]
            places.append(
                {
                    "token": self.token_text(token),
                    "logprob": float(logs[token]),
                    "top": [[self.token_text(int(t)), float(logs[t])] for t in top],
                }
            )
        return Reply(
            text=self.decode(drawn),
            logprobs=places if logprobs else None,
            finish_reason=finish,
            prompt_tokens=len(tokens),
            completion_tokens=len(drawn),
        )

    def token_text(self, token: int) -> str:
        """Write a token as services do: parts of characters are escaped bytes."""
        raw = self.vocabulary[token]
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "".join(f"\\x{byte:02x}" for byte in raw)


def _chat(messages: Sequence[Mapping[str, Any]]) -> str:
    if len(messages) == 1:
        return str(messages[0].get("content"))
    return "\n".join(f"{m['role']}: {m.get('content')}" for m in messages) + "\nassistant:"
