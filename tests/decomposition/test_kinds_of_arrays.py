"""Whatever holds the same numbers is the same data: bits, dtypes, duplicates, masks; what is no real number is refused.

Most is asked of the functions that all estimators read their data with; a few fits show that they do.
"""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from jax.experimental import sparse

from deepnmf_jax import NMF, ArchetypalAnalysis, ConvexNMF, Dn2MFGL, SemiNMF
from deepnmf_jax.decomposition import ConvergenceWarning, choose_k
from deepnmf_jax.decomposition.dn2mfgl.fit import given_starts
from deepnmf_jax.decomposition.io import arrays
from deepnmf_jax.decomposition.io.checked import read_data

N, P = 12, 5
ESTIMATORS: list[Callable[[], Any]] = [
    lambda: NMF(2, max_iter=2),
    lambda: SemiNMF(2, max_iter=2),
    lambda: ConvexNMF(2, max_iter=2),
    lambda: ArchetypalAnalysis(2, max_iter=2),
    lambda: Dn2MFGL((2,), alpha=0.1, n_neighbors=3, max_iter=2),
]


def table() -> np.ndarray:
    """Whole numbers from 0 to 9, zeros among them: exact in every dtype."""
    return np.floor(10 * np.random.default_rng(0).random((N, P)))


@pytest.fixture(autouse=True)
def limits_may_be_reached() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", PendingDeprecationWarning)  # of np.matrix


def read(x: Any) -> np.ndarray:
    dtype = arrays.dtype_for(x)
    with arrays.with_precision(dtype):
        array = arrays.to_dense(x, dtype)
    assert array.dtype == dtype
    np.testing.assert_array_equal(arrays.to_numpy(x, np.float64), np.asarray(array, np.float64))
    return np.asarray(array)


SINGLE = {
    name: (lambda a, name=name: a.astype(name))
    for name in ("f2", ">f2", ">f4", "<f4", "i1", ">i2", "i4", ">i8", "u1", ">u4", "u8")
} | {
    "bfloat16": lambda a: np.asarray(jnp.asarray(a, jnp.bfloat16)),
    "jax, bfloat16": lambda a: jnp.asarray(a, jnp.bfloat16),
    "jax, whole": lambda a: jnp.asarray(a, jnp.int16),
    "list": lambda a: a.tolist(),
    "tuples": lambda a: tuple(map(tuple, a.tolist())),
    "list of rows": lambda a: list(a.astype("f4")),
    "scipy, whole": lambda a: sp.csr_array(a.astype(np.uint8)),
    "BCSR": lambda a: sparse.BCSR.fromdense(jnp.asarray(a, jnp.float32)),
    "CSR of JAX": lambda a: sparse.CSR.fromdense(jnp.asarray(a, jnp.float32)),
    "BCOO": lambda a: sparse.BCOO.fromdense(jnp.asarray(a, jnp.int32)),
    "BCOO, padded": lambda a: sparse.BCOO.fromdense(jnp.asarray(a, jnp.float32), nse=N * P + 7),
    "BCOO, in batches": lambda a: sparse.BCOO.fromdense(jnp.asarray(a, jnp.float32), n_batch=1),
    "BCOO, dense rows": lambda a: sparse.BCOO.fromdense(jnp.asarray(a, jnp.float32), n_dense=1),
}
DOUBLE = {
    ">f8": lambda a: a.astype(">f8"),
    "long double": lambda a: a.astype(np.longdouble),
    "matrix": np.matrix,
    "view of memory": lambda a: memoryview(np.ascontiguousarray(a)),
    "objects": lambda a: a.astype(object),
    "list of rows": list,
    "by columns, backwards": lambda a: np.asfortranarray(a[::-1])[::-1],
    "nothing hidden": lambda a: np.ma.masked_array(a, np.zeros_like(a, bool)),
    **{kind: getattr(sp, kind) for kind in ("csr_array", "csc_array", "coo_array", "lil_array", "dok_array")},
    "dia_array": sp.dia_array,
    "bsr_array": sp.bsr_array,
    "csr_matrix": sp.csr_matrix,
}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "dtype"), [(k, "float32") for k in SINGLE] + [(k, "float64") for k in DOUBLE])
def test_the_numbers_and_the_dtype(kind: str, dtype: str) -> None:
    x = (SINGLE if dtype == "float32" else DOUBLE)[kind](table())
    found = read(x)
    assert found.dtype == dtype and not arrays.is_batches(x)
    np.testing.assert_array_equal(found, table())


def test_truth_values_are_ones() -> None:
    truth = table() > 4
    for x in (truth, truth.tolist(), jnp.asarray(truth), sp.coo_array(truth), sp.csc_matrix(truth)):
        np.testing.assert_array_equal(read(x), truth.astype("f4"))


@pytest.mark.parametrize("kind", ["i8", ">i8", "u8", "list", "jax", "scipy"])
def test_large_whole_numbers_are_not_rounded(kind: str) -> None:
    whole = (table() * 3_000_001).astype(np.int64)
    if kind == "list":
        x = whole.tolist()
    elif kind == "jax":
        x = jnp.asarray(whole, jnp.int32)
    else:
        x = sp.csr_array(whole) if kind == "scipy" else whole.astype(kind)
    found = read(x)
    assert found.dtype == np.float64 and found.astype(np.float32).astype(np.int64).tolist() != whole.tolist()
    np.testing.assert_array_equal(found, whole)


def test_frames() -> None:
    pd = pytest.importorskip("pandas")
    a = table()
    whole = pd.DataFrame(a.astype(int), columns=list("abcde"))
    mixed = pd.DataFrame({"a": a[:, 0].astype("f4"), "b": a[:, 1].astype("u1"), "c": a[:, 2] > 4})
    frames = [
        (pd.DataFrame(a), "float64", a),
        (pd.DataFrame({i: a[:, i].astype(">f8") for i in range(P)}), "float64", a),
        (pd.DataFrame(a.astype("f4")), "float32", a),
        (whole, "float32", a),
        (whole * 3_000_001, "float64", a * 3_000_001),
        (whole.astype("Int64"), "float64", a),
        (whole.astype("Float64"), "float64", a),
        (pd.DataFrame(a).astype("Float32"), "float32", a),
        (mixed, "float32", np.stack([a[:, 0], a[:, 1], a[:, 2] > 4], axis=1)),
        (whole.assign(a=a[:, 0] + 0.25), "float64", a + np.eye(1, P) / 4),
        (pd.DataFrame(a).astype(object), "float64", a),
        (pd.DataFrame(a).astype(pd.SparseDtype("float64", 0.0)), "float64", a),
    ]
    for frame, dtype, wanted in frames:
        before = frame.copy()
        found = read(frame)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, wanted)
        pd.testing.assert_frame_equal(frame, before)
    gap = whole.astype("Int64")
    gap.iloc[3, 1] = pd.NA
    with pytest.raises(ValueError, match=r"NaN .*at \(3, 1\)"):
        read_data(gap, np.dtype("float32"))
    for wrong in (whole.astype(str), pd.DataFrame({"t": pd.to_datetime(["2020-01-01"])}), whole.astype(complex)):
        with pytest.raises(ValueError, match="no number|numbers from|complex"):
            read(wrong)


def test_repeated_entries_are_added_up() -> None:
    rng = np.random.default_rng(1)
    rows, columns, values = rng.integers(0, N, 90), rng.integers(0, P, 90), rng.integers(1, 200, 90)
    dense = np.zeros((N, P))
    np.add.at(dense, (rows, columns), values)
    assert dense.max() > 255  # beyond one byte
    index = jnp.stack([jnp.asarray(rows), jnp.asarray(columns)], axis=1)
    compressed = sp.csr_array((N, P), dtype=np.uint8)
    order = np.argsort(rows, kind="stable")
    compressed.indptr = np.searchsorted(rows[order], np.arange(N + 1)).astype(np.int32)
    compressed.indices, compressed.data = columns[order].astype(np.int32), values[order].astype(np.uint8)
    for x in (
        sp.coo_matrix((values.astype(np.uint8), (rows, columns)), (N, P)),
        sp.coo_array((values.astype("f8"), (rows, columns)), (N, P)),
        compressed,
        sparse.BCOO((jnp.asarray(values, jnp.uint8), index), shape=(N, P)),
        sparse.BCOO((jnp.asarray(values, jnp.float32), index), shape=(N, P)),
    ):
        before = x.data.copy(), x.nse if isinstance(x, sparse.BCOO) else x.nnz
        np.testing.assert_array_equal(read(x), dense)
        sparsely = arrays.to_jax(x, np.dtype("float32"))
        assert isinstance(sparsely, sparse.BCOO) and sparsely.unique_indices
        np.testing.assert_array_equal(sparsely.todense(), dense)
        np.testing.assert_array_equal(x.data, before[0])
        assert before[1] == (x.nse if isinstance(x, sparse.BCOO) else x.nnz)
    # Truth values stay truth values, and what adds up to more than 0 is not negative.
    twice = sp.coo_array(([True, True], ([0, 0], [1, 1])), (2, 2))
    np.testing.assert_array_equal(read(twice), [[0, 1], [0, 0]])
    mixed = sparse.BCOO((jnp.asarray([3.0, -1.0]), jnp.asarray([[0, 0], [0, 0]])), shape=(2, 2))
    assert float(read_data(mixed, np.dtype("float32")).a.todense()[0, 0]) == 2


@pytest.mark.slow
def test_a_fit_of_repeated_entries() -> None:
    index = jnp.asarray([[i % 4, i % 3] for i in range(20)])
    doubled = sparse.BCOO((jnp.arange(20.0), index), shape=(4, 3))
    model, dense = NMF(2, max_iter=3), NMF(2, max_iter=3)
    z, d = model.fit(doubled)
    dense.fit(doubled.todense())
    assert isinstance(z, jax.Array)
    assert model.reconstruction_err_ == pytest.approx(float(jnp.linalg.norm(doubled.todense() - z @ d)), rel=1e-4)
    assert model.loss_history_ == pytest.approx(dense.loss_history_, rel=1e-4)


NO_NUMBERS = {
    "complex": lambda a: a + 1j,
    "complex, jax": lambda a: jnp.asarray(a + 1j),
    "complex, scipy": lambda a: sp.csc_array(a + 1j),
    "complex, BCOO": lambda a: sparse.BCOO.fromdense(jnp.asarray(a + 1j)),
    "complex, list": lambda a: (a + 1j).tolist(),
    "complex, objects": lambda a: (a + 1j).astype(object),
    "text": lambda a: a.astype(str),
    "text of digits in lists": lambda a: [["1", "2"], ["3", "4"]],
    "dates": lambda a: a.astype("M8[s]"),
    "spans of time": lambda a: a.astype("m8[s]"),
    "records": lambda a: np.zeros(3, [("x", float)]),
    "keys": lambda a: jax.random.split(jax.random.key(0), (2, 2)),
    "ragged": lambda a: [[1.0, 2.0], [3.0]],
    "a dict": lambda a: {"image": a},
    "a set": lambda a: {1, 2},
    "None": lambda a: None,
    "one axis": lambda a: a[0],
    "one axis, scipy": lambda a: sp.coo_array(a[0]),
    "a number": lambda a: 3,
    "hidden entries": lambda a: np.ma.masked_array(a, a > 5),
    "rows with hidden entries": lambda a: [np.ma.masked_array(row, np.arange(len(row)) == 1) for row in a],
    "beyond float32": lambda a: (a * 1e300).tolist(),
}


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_what_is_refused(kind: str) -> None:
    for make in ESTIMATORS:
        if kind == "hidden entries" and make is ESTIMATORS[0]:
            continue
        with pytest.raises(ValueError, match=r"\w+ \w+ \w+"):
            make().fit(NO_NUMBERS[kind](table()))
    model = NMF(2)
    model._d = jnp.ones((2, P))
    for use in (model.decode, model.init_random_z, model.partial_fit, model.sanitize_np_input):
        with pytest.raises(ValueError, match=r"\w+ \w+ \w+"):
            use(NO_NUMBERS[kind](table()[:, :2] if use == model.decode else table()))
    with pytest.raises(ValueError, match=r"\w+ \w+ \w+"):
        choose_k(NO_NUMBERS[kind](table()), [1, 2])


def test_a_sparse_matrix_too_large_to_be_written_out_is_refused() -> None:
    wide = sp.coo_array(([1.0], ([0], [0])), (2**17, 2**17))
    for use in (*(make().fit for make in ESTIMATORS[1:]), NMF(2).sanitize_np_input, lambda a: choose_k(a, [1, 2])):
        with pytest.raises(ValueError, match="would be written out"):
            use(wide)


def test_complex_numbers_are_refused_under_jit_and_as_starts_too() -> None:
    model = NMF(2)
    model._d = jnp.ones((2, P))
    for use, width in ((model.encode, P), (model.decode, 2)):
        with pytest.raises(ValueError, match="complex"):
            jax.eval_shape(use, jax.ShapeDtypeStruct((4, width), jnp.complex64))
    h, v = np.ones((P, 2)), np.ones((2, N))
    assert given_starts(((h.astype(">f8"),), (v.tolist(),)), jnp.ones((P, N)), (2,)).h[0].shape == (1, P, 2)
    for wrong in (h + 1j, np.ma.masked_array(h, h > 0), h.astype(str)):
        with pytest.raises(ValueError, match=r"init must be .*(complex|hidden|numbers)"):
            given_starts(((wrong,), (v,)), jnp.ones((P, N)), (2,))


def test_the_mask_of_a_masked_array_is_used() -> None:
    a, known = table(), table() != 3
    hidden = np.ma.masked_array(np.where(known, a, 1e6), ~known)
    for given in (None, np.ones_like(a), known.tolist()):
        data = read_data(hidden, np.dtype("float32"), mask=given, takes_mask=True)
        np.testing.assert_array_equal(np.asarray(data.a) * data.scale, np.where(known, a, 0))
        np.testing.assert_array_equal(data.weights, known)
    model, named = NMF(2, max_iter=2), NMF(2, max_iter=2)
    z, named_z = model.fit(hidden)[0], named.fit(a, mask=known)[0]
    np.testing.assert_array_equal(z, named_z)
    np.testing.assert_array_equal(model.encode(hidden), named.encode(a, mask=known))
    for use in (
        lambda: model.partial_fit(hidden),
        lambda: model.fit([hidden, hidden]),
        lambda: model.fit(a, weights=hidden),
        lambda: model.fit(a, init=(hidden[:, :2], np.ones((2, P)))),
        lambda: model.encode(a, mask=np.ma.masked_array(known, ~known)),
    ):
        with pytest.raises(ValueError, match="hidden entries"):
            use()
