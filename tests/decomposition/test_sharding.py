"""Data over 8 virtual devices gives the result of one device, and an estimator goes from one to another as a whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import warnings
import jax
jax.config.update("jax_enable_x64", True)
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from deepnmf_jax import NMF

warnings.simplefilter("ignore")
assert len(jax.devices()) == 8
rng = np.random.default_rng(0)
a = rng.random((64, 3)) @ rng.random((3, 10)) + 0.1 * rng.random((64, 10))
mesh = Mesh(np.array(jax.devices()), ("samples",))
sharded = jax.device_put(a, NamedSharding(mesh, PartitionSpec("samples")))
for solver in ("hals", "mu", "pgd"):
    model = NMF(3, solver=solver, max_iter=20, tol=0, init="nndsvda")
    z, d = model.fit(a)
    zs, ds = NMF(3, solver=solver, max_iter=20, tol=0).fit(sharded)
    assert np.abs(zs - z).max() < 1e-9 and np.abs(ds - d).max() < 1e-9, solver
    assert len(zs.sharding.device_set) == 8, zs.sharding
print("same")
"""


MOVED = """
import warnings
import numpy as np
from deepnmf_jax import NMF, ConvexNMF

warnings.simplefilter("ignore")
a = np.random.default_rng(0).random((30, 8)).astype(np.float32)
plain = NMF(3).partial_fit(a).partial_fit(a)
moved = NMF(3, device="cpu:1").partial_fit(a).to("cpu:0").partial_fit(a)
assert np.array_equal(moved.D, plain.D)
for model in (NMF(3, device="cpu:1", warm_start=True, max_iter=5), ConvexNMF(3, device="cpu:1", max_iter=5)):
    model.fit(a)
    held = [value for value in vars(model.to("cpu:0")).values() if hasattr(value, "devices")]
    assert len(held) > 1 and {device.id for value in held for device in value.devices()} == {0}, model
    model.fit(a)
print("same")
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [SCRIPT, MOVED], ids=["sharded", "moved"])
def test_eight_devices_equal_one(script: str) -> None:
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "same", done.stderr[-2000:]
