"""A model of the transformers library on this machine, with exact log-probabilities."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

from causalrm.core.errors import BackendError, DataError, require
from causalrm.llm.backend import Backend
from causalrm.llm.cache import Cache
from causalrm.llm.logprobs import spelling
from causalrm.llm.reply import Reply, Request

_GENERATION = ("max_tokens", "temperature", "top_p", "seed", "stop", "logprobs", "top_logprobs")


class TransformersModel(Backend):
    """A causal language model from a local folder; needs the extra ``transformers``.

    Nothing is downloaded. The model is loaded at first use in each process. Choices are scored
    exactly: a choice that single tokens write (with or without a leading space) has the sum
    of their probabilities; a longer one those of its token sequences, with and without a
    leading space, as the beginning of the reply. So no mass is unlisted, and both bounds equal
    the probability.

    Parameters
    ----------
    path : str or path
        Folder with the model's configuration, weights and tokenizer.
    device : str, optional
        As torch names it; by default the accelerator if there is one, else the CPU.
    dtype : str, default "float32"
        Half precision is faster on accelerators and less exact.
    name, revision : str, optional
        By default the folder's name, and a hash of its files' names, sizes and times.
    cache : Cache, str or path, optional
    progress : bool, default True

    Notes
    -----
    A string is continued as it is; messages go through the tokenizer's chat template. Replies
    are drawn with torch's generator seeded by ``seed`` (0) and ``replicate``; log-probabilities
    are raw, before temperature and ``top_p``.
    """

    _scores_choices: ClassVar[bool] = True

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        device: str | None = None,
        dtype: str = "float32",
        name: str | None = None,
        revision: str | None = None,
        cache: Cache | str | PathLike[str] | None = None,
        progress: bool = True,
    ) -> None:
        self.path = Path(path)
        if not (self.path / "config.json").is_file():
            raise DataError(f"{self.path} must be a folder with a model: it has no config.json.")
        super().__init__(
            name or self.path.resolve().name,
            revision=revision or _fingerprint(self.path),
            cache=cache,
            progress=progress,
        )
        self.device = device
        self.dtype = dtype

    def __repr__(self) -> str:
        return f"TransformersModel({str(self.path)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_loaded", "_spellings")}

    @cached_property
    def _loaded(self) -> tuple[Any, Any, Any, str]:
        torch = require("torch", "transformers")
        transformers = require("transformers", "transformers")
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        kwargs = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.path, **kwargs)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                self.path, dtype=getattr(torch, self.dtype), **kwargs
            )
        except (OSError, ValueError) as error:
            raise BackendError(f"The model in {self.path} cannot be loaded: {error}") from error
        return torch, tokenizer, model.to(device).eval(), device

    @cached_property
    def _spellings(self) -> dict[str, list[int]]:
        """All single tokens by what they write, white space aside."""
        _, tokenizer, model, _ = self._loaded
        found: dict[str, list[int]] = {}
        for i in range(min(len(tokenizer), model.config.vocab_size)):
            if i not in tokenizer.all_special_ids:
                found.setdefault(spelling(tokenizer.decode([i])), []).append(i)
        return found

    def _connect(self) -> AbstractAsyncContextManager[Any]:
        _ = self._loaded  # what is missing or broken is an exception, not a row per prompt
        return super()._connect()

    def _encode(self, prompt: str | list[dict[str, Any]]) -> list[int]:
        tokenizer = self._loaded[1]
        if isinstance(prompt, str):
            ids = tokenizer(prompt)["input_ids"]
        elif tokenizer.chat_template is None:
            raise DataError(f"The tokenizer of {self.path} has no chat template: give strings.")
        else:
            text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise DataError("The prompt has no tokens.")
        return [int(i) for i in ids]

    def _count_tokens(self, request: Request) -> int:
        return len(self._encode(request.prompt))

    async def _answer(self, request: Request, connection: Any) -> Reply:
        start = time.perf_counter()
        try:
            ids = self._encode(request.prompt)
            with self._loaded[0].inference_mode():
                if request.choices is not None:
                    fields = self._score(ids, request.choices)
                else:
                    fields = self._generate(ids, request)
        except (DataError, RuntimeError, ValueError, IndexError) as error:
            return Reply(error=f"{type(error).__name__}: {error}")
        return Reply(prompt_tokens=len(ids), latency=time.perf_counter() - start, **fields)

    def _score(self, ids: list[int], choices: Sequence[str]) -> dict[str, Any]:
        torch, tokenizer, _, _ = self._loaded
        following = self._logits(ids, 1)[-1]
        pairs: list[list[Any]] = []
        for choice in choices:
            single = self._spellings.get(choice, [])
            if single:
                logs = following[single]
            else:
                forms = {
                    tuple(tokenizer(form, add_special_tokens=False)["input_ids"])
                    for form in (choice, " " + choice)
                }
                logs = torch.stack([self._sequence(ids, list(form)) for form in sorted(forms)])
            pairs.append([choice, min(0.0, float(torch.logsumexp(logs, 0)))])
        best = max(pairs, key=lambda pair: pair[1])
        place = {"token": best[0], "logprob": best[1], "top": pairs, "exact": True}
        return {"text": best[0], "logprobs": [place], "finish_reason": "stop"}

    def _logits(self, ids: list[int], last: int) -> Any:
        """Log-probabilities of the tokens after each of the `last` ones."""
        torch, _, model, device = self._loaded
        logits = model(torch.tensor([ids], device=device)).logits[0, -last:]
        return torch.log_softmax(logits.double(), -1)

    def _sequence(self, ids: list[int], form: list[int]) -> Any:
        logs = self._logits(ids + form[:-1], len(form))
        return sum(logs[i, token] for i, token in enumerate(form))

    def _generate(self, ids: list[int], request: Request) -> dict[str, Any]:
        torch, tokenizer, model, device = self._loaded
        decoding = request.decoding
        if unknown := sorted(set(decoding) - set(_GENERATION)):
            raise DataError(f"{unknown[0]!r} is not among the parameters {_GENERATION}.")
        temperature = decoding.get("temperature", 1)
        options: dict[str, Any] = {"do_sample": temperature > 0, "top_k": 0}
        if temperature > 0:
            options |= {"temperature": float(temperature), "top_p": decoding.get("top_p", 1.0)}
        stop = decoding.get("stop") or []
        stops = [stop] if isinstance(stop, str) else stop
        n = int(decoding.get("max_tokens", 16))
        with torch.random.fork_rng(devices=[] if device == "cpu" else None):
            torch.manual_seed(int(request.key("draw", None)[:15], 16))
            out = model.generate(
                torch.tensor([ids], device=device),
                attention_mask=torch.ones((1, len(ids)), dtype=torch.long, device=device),
                max_new_tokens=n,
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id or 0,
                output_logits=True,
                return_dict_in_generate=True,
                **({"stop_strings": stops, "tokenizer": tokenizer} if stops else {}),
                **options,
            )
        drawn = out.sequences[0, len(ids) :].tolist()
        text = tokenizer.decode(drawn, skip_special_tokens=True)
        ends = [text.index(s) for s in stops if s in text]
        places = []
        for token, logits in zip(drawn, out.logits, strict=True):
            logs = torch.log_softmax(logits[0].double(), -1)
            values, top = logs.topk(min(int(decoding.get("top_logprobs", 0)), len(logs)))
            pairs = zip(top.tolist(), values.tolist(), strict=True)
            places.append(
                {
                    "token": tokenizer.decode([token]),
                    "logprob": max(-9999.0, float(logs[token])),
                    "top": [[tokenizer.decode([t]), max(-9999.0, v)] for t, v in pairs],
                }
            )
        ended = bool(ends) or len(drawn) < n or drawn[-1] == tokenizer.eos_token_id
        return {
            "text": text[: min(ends)] if ends else text,
            "logprobs": places if decoding.get("logprobs") else None,
            "finish_reason": "stop" if ended else "length",
            "completion_tokens": len(drawn),
        }


def _fingerprint(path: Path) -> str:
    """Tell one state of a folder from another without reading gigabytes."""
    files = sorted(f for f in path.iterdir() if f.is_file())
    facts = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
