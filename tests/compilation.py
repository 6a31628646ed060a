"""How fast XLA compiles the tests' programs: most of their time is compilation.

"quick" programs are compiled with few optimisations: they give other last digits, and are slow where they run long.
"plain" ones are optimised, but by XLA's older code generator for CPUs, in half the time of the newer one. The
networks that are compared with golden numbers, and a user's first run, are compiled as users' programs are ("usual").
"""

import functools
import os
from typing import Any

import jax

# JAX has no public setting of XLA's options for all programs of a process that is already running.
from jax._src import compiler

OPTIONS = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}

_usual = compiler.get_compile_options


@functools.cache
def known_options() -> dict[str, Any]:
    """Of `OPTIONS` those that this XLA knows."""
    known = {}
    for name, value in OPTIONS.items():
        try:
            jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
        except jax.errors.JaxRuntimeError:
            continue
        known[name] = value
    return known


def compile_as(kind: str, options: dict[str, Any] | None = None) -> None:
    """From here on this process compiles so; `options` are `known_options()` if another process has found them."""
    jax.config.update("jax_disable_most_optimizations", kind == "quick")
    if kind == "usual":
        compiler.get_compile_options = _usual
    else:
        known = known_options() if options is None else options
        compiler.get_compile_options = functools.partial(_with_options, tuple(known.items()))


def environment_to_compile_as(kind: str) -> dict[str, str]:
    """The same for a Python that a test starts."""
    if kind == "usual":
        return {}
    flags = [os.environ.get("XLA_FLAGS", ""), *(f"--{name}={value}".lower() for name, value in known_options().items())]
    return {"XLA_FLAGS": " ".join(flags), "JAX_DISABLE_MOST_OPTIMIZATIONS": str(kind == "quick")}


def _with_options(options: tuple[tuple[str, Any], ...], *arguments: Any, **named: Any) -> Any:
    built = _usual(*arguments, **named)
    built.env_option_overrides = [*built.env_option_overrides, *options]
    return built
