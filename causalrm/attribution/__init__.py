"""Shapley attribution over the components of a prompt, with honest uncertainty."""

from __future__ import annotations
