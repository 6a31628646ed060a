"""The benchmark of Dn2MFGL: its numpy loops make the released sweeps; it runs."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks.speed.programs import dn2mfgl as programs
from deepnmf_jax.decomposition.dn2mfgl import released

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("dense", [False, True])
def test_the_numpy_loops_make_the_released_sweeps(dense: bool) -> None:
    x, sizes = programs.samples(30, 12, 4).astype(float), [6, 3]
    h, v = ([a.astype(float) for a in factors] for factors in programs.random_factors(x, sizes))
    graph, strengths = programs.graph_of(x), (1.0, 0.3, 0.2)
    factors = released.Factors(tuple(h), tuple(v))
    expected, _ = jax.jit(released.sweep)(factors, released.row_weights(x.T, factors), x.T, graph, *strengths)
    weights, structure = programs.row_weights(x.T, h, v[-1], dense), programs.structure_of(graph, dense)
    programs.released_sweep(x.T, h, v, weights, structure, strengths)
    for mine, theirs in zip((*h, *v), (*expected.h, *expected.v), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10)


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.speed.dn2mfgl", "--quick", f"--out={tmp_path}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    result = json.loads((tmp_path / "dn2mfgl.json").read_text())
    assert set(result["problems"]["60 x 20"]) == set(programs.PROGRAMS)
    assert result["ratios"] and all(value > 0 for value in result["ratios"].values())
