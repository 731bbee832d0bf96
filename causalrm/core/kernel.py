"""The one numba decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import numba


@overload
def kernel[F: Callable[..., Any]](function: F) -> F: ...
@overload
def kernel[F: Callable[..., Any]](
    *, inline: bool = False, reassociate: bool = False
) -> Callable[[F], F]: ...
def kernel[F: Callable[..., Any]](
    function: F | None = None, *, inline: bool = False, reassociate: bool = False
) -> F | Callable[[F], F]:
    """Compile a function for plain loops over arrays: serial, cached, without the GIL.

    A kernel runs on the thread pool of `causalrm.core.blocks`, so it starts no threads
    of its own. Its compiled callees live in the same file, because numba's cache notices
    changes of that file only.

    Parameters
    ----------
    function : callable
        Arrays and scalars in, arrays and scalars out.
    inline : bool
        For small scalar callees: LLVM is asked to inline them always.
    reassociate : bool
        Let LLVM reorder sums, without which a plain sum is not vectorised. The order is fixed at
        compile time, so that a machine repeats its own answers.
    """

    def decorate(f: F) -> F:
        options: dict[str, Any] = {"nopython": True, "nogil": True, "error_model": "numpy"}
        if inline:
            options["forceinline"] = True
        if reassociate:
            options["fastmath"] = {"reassoc", "contract", "nsz"}
        try:
            return numba.jit(cache=True, **options)(f)  # type: ignore[no-any-return]
        except RuntimeError:
            # Neither the package's folder nor the user's cache can be written: compile anew
            # in each process. NUMBA_CACHE_DIR names a folder that can.
            return numba.jit(**options)(f)  # type: ignore[no-any-return]

    return decorate if function is None else decorate(function)
