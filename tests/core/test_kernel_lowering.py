"""What can be said of the kernel for a GPU without one: that it lowers, with which products, and what is refused.

Lowering ends before code is generated: it says nothing about registers, shared memory or speed.
"""

import inspect
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from deepnmf_jax.core.checks import has_cuda
from deepnmf_jax.core.inference import infer, infer_unchecked
from deepnmf_jax.core.iteration import Settings
from deepnmf_jax.core.kernels.tiles import forward_tiles
from deepnmf_jax.layers import NMFConv
from deepnmf_jax.models import CNMF1x1
from deepnmf_jax.models.summary import layer_rows
from tests.core.test_inference import problem

pytestmark = pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")  # jax 0.12

# Positions, inputs and units of the four blocks of CNMF+1x1 for 28 x 28 images.
BLOCKS = {1: (576, 75, 32), 2: (64, 800, 64), 3: (1, 1024, 96), 4: (1, 96, 10)}


def mesh(devices):
    """A mesh of GPUs that need not exist."""
    options = {"axis_types": (AxisType.Auto,)} if hasattr(jax.sharding, "AbstractDevice") else {}
    if "abstract_device" in inspect.signature(AbstractMesh).parameters:
        options["abstract_device"] = jax.sharding.AbstractDevice(
            device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu"
        )
    return AbstractMesh((devices,), ("data",), **options)


def lowered(function, *shapes, devices=1, batched=0):
    """StableHLO of a function of float32 arrays for CUDA; the first array's axis `batched` is split over devices."""
    gpus = mesh(devices)
    specs = [P(*[None] * batched, "data")] + [P()] * (len(shapes) - 1)
    arguments = [
        jax.ShapeDtypeStruct(shape, "float32", sharding=NamedSharding(gpus, spec))
        for shape, spec in zip(shapes, specs, strict=True)
    ]
    if not hasattr(jax.sharding, "use_abstract_mesh"):
        return jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    with jax.sharding.use_abstract_mesh(gpus):
        return jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()


def layer(**settings):
    """h and both gradients, with the kernel."""

    def run(x, w):
        h, vjp = jax.vjp(lambda x, w: infer_unchecked(x, w, Settings(implementation="pallas", **settings)), x, w)
        return h, *vjp(h)

    return run


def shapes(block, batch=50):
    positions, n, k = BLOCKS[block]
    return (batch * positions, n), (k, n)


def kernels(text):
    return text.count("__gpu$xla.gpu.triton")


def test_the_blocks_are_those_of_the_network():
    rows = [r for r in layer_rows(CNMF1x1(), (28, 28, 3)) if r.layer == "NMFConv"]
    units = {i + 1: (row.output[0] * row.output[1], row.parameters // row.output[2], row.output[2])
             for i, row in enumerate(rows)}  # fmt: skip
    assert units == BLOCKS


@pytest.mark.parametrize("products", ["full", "tf32", "bfloat16"])
@pytest.mark.parametrize("block", BLOCKS)
def test_it_lowers_for_cuda_with_every_block_of_the_network(block, products):
    assert kernels(lowered(layer(products=products), *shapes(block))) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"epsilon": 0.5},
        {"acceleration": "adaptive"},
        {"acceleration": "multistep"},
        {"tolerance": 0.01},
        {"acceleration": "adaptive", "tolerance": 0.01},
    ],
    ids=str,
)
@pytest.mark.parametrize("block", [1, 2])
def test_every_kind_of_iteration_lowers(block, settings):
    assert kernels(lowered(layer(**settings), *shapes(block))) == 1


def test_seeds_side_by_side_lower():
    seeds = [(3, *shape) for shape in shapes(2)]
    assert kernels(lowered(jax.vmap(layer()), *seeds, batched=1)) == 1


@pytest.mark.parametrize("implementation", ["pallas", "xla"])
@pytest.mark.parametrize(
    "products, precision", [("full", "Precision.HIGHEST"), ("tf32", "TF32_TF32_F32"), ("bfloat16", "bf16[")]
)
def test_products_say_their_precision(products, precision, implementation):
    # JAX and Triton both take TF32 on a GPU where nothing is said.
    x, w = (jax.ShapeDtypeStruct(shape, "float32") for shape in shapes(4))
    settings = Settings(implementation=implementation, products=products)
    with jax.default_matmul_precision("tensorfloat32"):
        program = str(jax.make_jaxpr(lambda x, w: infer_unchecked(x, w, settings))(x, w))
    if (implementation, products) == ("xla", "tf32"):
        assert program.count("reduce_precision[") == 6
        precision = "Precision.HIGH"
    assert program.count("dot_general[") == (9 if implementation == "pallas" else 3)
    assert program.count(precision) >= program.count("dot_general[")


def test_the_four_blocks_tiles():
    """Those that the docstring of deepnmf_jax.core.kernels speaks of."""
    forward = {i: forward_tiles(50 * positions, n, k) for i, (positions, n, k) in BLOCKS.items()}
    assert [(t.rows, t.units, t.width, t.chunks, t.resident, t.warps) for t in forward.values()] == [
        (64, 32, 16, 5, True, 4),
        (16, 64, 32, 25, False, 4),
        (16, 128, 32, 32, False, 4),
        (16, 16, 32, 3, True, 4),
    ]
    assert forward_tiles(512 * 64, 800, 64)[:1] + forward_tiles(512 * 64, 800, 64)[-1:] == (64, 8)


def test_several_devices_are_refused_but_in_shard_map():
    def run(x, w):
        return infer_unchecked(x, w, Settings(implementation="pallas"))

    arrays = shapes(2)
    with pytest.raises(ValueError, match="in a program for 2 devices; .* jax.shard_map"):
        lowered(run, *arrays, devices=2)
    if hasattr(jax, "shard_map"):
        mapped = jax.shard_map(run, mesh=mesh(2), in_specs=(P("data"), P()), out_specs=P("data"), check_vma=False)
    else:
        from jax.experimental.shard_map import shard_map

        mapped = shard_map(run, mesh=mesh(2), in_specs=(P("data"), P()), out_specs=P("data"), check_rep=False)
    assert kernels(lowered(mapped, *arrays, devices=2)) == 1


X, W = problem(dtype="float32")
REFUSED = {
    "unknown": (X, W, {"implementation": "triton"}, "implementation = 'triton' is unknown; use one of 'xla', 'pallas'"),
    "no GPU": (X, W, {"implementation": "pallas"}, "'pallas' on 'cpu', .* a CUDA GPU .* use implementation = 'xla'"),
    "unrolled": (X, W, {"implementation": "interpret", "gradient": "unrolled"}, "use gradient = 'approximate'"),
    "float64": (X, W.astype("float64"), {"implementation": "interpret"}, "x in float32 and w in float64; .* use float"),
    "many units": (X, jnp.ones((513, 20)) / 20, {"implementation": "interpret"}, "k = 513 units; .* at most 512"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_kernel_cannot_do_is_refused(monkeypatch, case):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")  # these tests run on machines with a GPU too
    x, w, settings, message = REFUSED[case]
    w = w.astype("float32") if case == "many units" else w
    with pytest.raises(ValueError, match=message):
        infer(x, w, **settings)
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda x, w: infer(x, w, **settings))(x, w)


def test_a_jax_without_triton_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.triton", None)
    with pytest.raises(ValueError, match=r"with JAX \d.*no Triton backend of Pallas; use implementation = 'xla'"):
        infer(X, W, implementation="interpret")
    assert infer(X, W).shape == (X.shape[0], W.shape[0])


@pytest.mark.parametrize(
    "version, capability, allowed",
    [
        ("cuda 12090", "9.0", True),
        ("cuda 12090", "8.0", True),
        ("cuda 12090", "7.5", False),
        ("rocm 7", "gfx942", False),
    ],
)
def test_which_gpus_are_allowed(monkeypatch, version, capability, allowed):
    device = SimpleNamespace(client=SimpleNamespace(platform_version=version), compute_capability=capability)
    monkeypatch.setattr(jax, "devices", lambda: [device])
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert not has_cuda()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert has_cuda() == allowed


def test_layers_refuse_it_too(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    images = jnp.ones((1, 4, 4, 2), "float32")
    with pytest.raises(ValueError, match="'pallas' on 'cpu'"):
        NMFConv(3, (2, 2), implementation="pallas").init(jax.random.key(0), images)
    with pytest.raises(ValueError, match="x in float64"):
        NMFConv(3, (2, 2), implementation="interpret").init(jax.random.key(0), images.astype("float64"))


def test_the_package_does_not_load_pallas():
    program = "import sys, deepnmf_jax; sys.exit('jax.experimental.pallas' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
