"""FlashInfer's backend through a stand-in that checks its arguments, against dense attention; the real signatures."""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from llmsim.costs.models import ModelConfig  # noqa: E402
from llmsim.errors import ConfigError  # noqa: E402
from llmsim.executors.attention import flashinfer as backend_module  # noqa: E402
from llmsim.executors.attention.flashinfer import FlashInferBackend, FlashInferBatchAttention  # noqa: E402
from llmsim.executors.step import Row, Step  # noqa: E402
from tests.executors import fake_flashinfer as fake  # noqa: E402
from tests.executors.flashinfer_rules import on_device  # noqa: E402

pytestmark = pytest.mark.live

PAGE = 4
CONFIG = ModelConfig(
    name="small", family="llama", hidden=256, mlp=64, layers=2, heads=4, kv_heads=2, head_dim=64, vocabulary=16,
    max_model_len=64, norm_eps=1e-5, rope_theta=1e4,
)  # fmt: skip
BOTH = pytest.mark.parametrize("kind", [FlashInferBackend, FlashInferBatchAttention])
MIXED = {  # (past, queries) of each row, decodes first
    "decodes of unequal context": [(1, 1), (3, 1), (4, 1), (16, 1), (8, 1)],
    "one prompt": [(0, 7)],
    "prompts on page boundaries": [(0, 4), (0, 8), (4, 4), (3, 1), (5, 3)],
    "chunks with a past": [(9, 5), (4, 8), (1, 2)],
    "decodes, a chunk and a prompt": [(6, 1), (11, 1), (8, 6), (0, 3)],
    "a decode behind a prompt": [(2, 1), (0, 5), (6, 1)],
    "a prompt of one token": [(0, 1), (5, 1)],
}


@pytest.fixture
def machine(monkeypatch):
    """A machine where flashinfer is the stand-in and host memory plays the device's."""
    fake.reset()
    monkeypatch.setattr(backend_module, "check_machine", lambda name, device: None)
    monkeypatch.setattr(backend_module.importlib, "import_module", lambda name: {"flashinfer": fake}[name])
    monkeypatch.setattr(backend_module, "to_device", lambda held, device: on_device(held))
    monkeypatch.setattr(backend_module, "WORKSPACE_BYTES", 128 * 2**20)
    yield fake
    fake.reset()


def build(kind, config=CONFIG, dtype=torch.float16):
    return kind(config, num_pages=64, page_size=PAGE, dtype=dtype, device=torch.device("cpu"))


class Served:
    """Sequences whose keys and values are kept densely, beside a backend that keeps them in scattered pages."""

    def __init__(self, backend, seed=0):
        self.backend = backend
        self.random = torch.Generator().manual_seed(seed)
        self.free = np.random.default_rng(seed).permutation(64).astype(np.int32).tolist()
        for layer in backend.kv:  # what was there before must not matter
            layer.normal_(generator=self.random)

    def row(self, past, queries, hidden=0):
        """A row on pages of its own, its past already in the cache of every layer; and the past, dense."""
        count = -(-(past + queries + hidden) // PAGE)
        pages, self.free = self.free[:count], self.free[count:]
        row = Row(np.zeros(queries, dtype=np.int64), past, np.array(pages, dtype=np.int32), hidden)
        dense = []
        for layer in self.backend.kv:
            k, v = (self.draw(past, CONFIG.kv_heads) for _ in range(2))
            for at in range(past):
                layer[pages[at // PAGE], 0, at % PAGE] = k[at]
                layer[pages[at // PAGE], 1, at % PAGE] = v[at]
            dense.append((k, v))
        return row, dense

    def draw(self, tokens, heads):
        return torch.randn(tokens, heads, CONFIG.head_dim, generator=self.random).to(self.backend.dtype)

    def compare(self, step, dense):
        """Largest difference to dense attention in float64, over all layers."""
        worst = 0.0
        tokens = len(step.token_ids)
        self.backend.plan(step)
        for layer in range(CONFIG.layers):
            # slices of one wider tensor, as behind a joint projection
            wide = self.draw(tokens, CONFIG.heads + 2 * CONFIG.kv_heads)
            q, k, v = wide.split([CONFIG.heads, CONFIG.kv_heads, CONFIG.kv_heads], dim=1)
            got = self.backend.run(layer, q, k, v)
            assert got.shape == q.shape
            assert got.dtype == q.dtype
            for row, past in enumerate(dense):
                at = slice(step.query_starts[row], step.query_starts[row + 1])
                keys, values = (torch.cat(pair).double() for pair in zip(past[layer], (k[at], v[at]), strict=True))
                expected = reference(q[at].double(), keys, values)
                worst = max(worst, float((got[at].double() - expected).abs().max()))
        return worst


def reference(q, k, v):
    """Causal attention of the last queries of one sequence, by torch, in float64."""
    mask = torch.ones(len(q), len(k), dtype=torch.bool).tril(len(k) - len(q))
    heads = (part.transpose(0, 1) for part in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask, enable_gqa=True)
    return out.transpose(0, 1)


@BOTH
@pytest.mark.parametrize("sizes", MIXED.values(), ids=MIXED.keys())
def test_equals_dense_attention(machine, kind, sizes):
    served = Served(build(kind))
    rows, dense = zip(*[served.row(past, queries) for past, queries in sizes], strict=True)
    assert served.compare(Step.pack(rows, PAGE), dense) < 2e-3  # float16 results


@BOTH
def test_hidden_keys_are_not_seen(machine, kind):
    served = Served(build(kind, dtype=torch.bfloat16))
    made = [served.row(6, 1), served.row(5, 1, hidden=7), served.row(2, 3, hidden=2), served.row(3, 4)]
    rows, dense = zip(*made, strict=True)
    step = Step.pack(rows, PAGE)
    assert step.decodes == 1
    assert served.compare(step, dense) < 2e-2
    assert not any(name.startswith("BatchAttention") for name, _, _ in machine.calls)
    (plan,) = (kwargs for name, _, kwargs in machine.calls if name == "BatchPrefillWithPagedKVCacheWrapper.plan")
    assert plan["custom_mask"].sum() == (5 + 1) + (3 + 4 + 5) + (4 + 5 + 6 + 7)
    assert served.compare(Step.pack([made[3][0]], PAGE), [made[3][1]]) < 2e-2, "the mask belongs to one step"


@BOTH
def test_steps_follow_each_other_on_the_same_pages(machine, kind):
    """A prompt in two chunks, then decodes: each step sees what the ones before have written."""
    backend = build(kind)
    served = Served(backend)
    row, _ = served.row(0, 11)
    k, v = [], []
    for start, queries in ((0, 6), (6, 5), (11, 1), (12, 1)):
        if start + queries > len(row.pages) * PAGE:
            row = row._replace(pages=np.append(row.pages, np.int32(served.free.pop())))
        step = Step.pack([Row(np.zeros(queries, dtype=np.int64), start, row.pages)], PAGE)
        backend.plan(step)
        q = served.draw(queries, CONFIG.heads)
        k.append(served.draw(queries, CONFIG.kv_heads))
        v.append(served.draw(queries, CONFIG.kv_heads))
        got = backend.run(0, q, k[-1], v[-1])
        expected = reference(q.double(), torch.cat(k).double(), torch.cat(v).double())
        assert float((got.double() - expected).abs().max()) < 2e-3


@BOTH
def test_a_wrong_block_table_gives_a_wrong_result(machine, kind):
    served = Served(build(kind))
    made = [served.row(9, 1), served.row(8, 4)]
    rows, dense = zip(*made, strict=True)
    swapped = rows[1]._replace(pages=rows[1].pages[[0, 2, 1]])  # the chunk lands on its own past
    assert served.compare(Step.pack([rows[0], swapped], PAGE), dense) > 0.1


@pytest.mark.parametrize(
    ("kind", "planned"),
    [(FlashInferBackend, {"BatchDecodeWithPagedKVCacheWrapper.plan", "BatchPrefillWithPagedKVCacheWrapper.plan"}),
     (FlashInferBatchAttention, {"BatchAttention.plan"})],
)  # fmt: skip
def test_plans_once_a_step_and_makes_its_wrappers_once(machine, kind, planned):
    served = Served(build(kind))
    for _ in range(2):
        rows, dense = zip(*[served.row(5, 1), served.row(4, 3)], strict=True)
        served.compare(Step.pack(rows, PAGE), dense)
    names = [name for name, _, _ in machine.calls]
    assert {name for name in names if name.endswith(".plan")} == planned
    assert all(names.count(name) == 2 for name in planned)
    made = {name.split(".")[0] for name in planned}
    assert all(names.count(name) == 1 for name in made)
    assert all(names.count(f"{name}.run") == 2 * CONFIG.layers for name in made)


def test_what_has_no_kernel_is_refused(machine):
    with pytest.raises(ConfigError, match=r"float16 or bfloat16 but got float32.*sdpa"):
        build(FlashInferBackend, dtype=torch.float32)
    with pytest.raises(ConfigError, match=r"64, 128, 256 but small has heads of 80"):
        build(FlashInferBackend, config=replace(CONFIG, head_dim=80))


@BOTH
def test_a_machine_without_a_gpu_is_told_to_use_sdpa(kind):
    with pytest.raises(ConfigError, match=r"CUDA devices only but got device cpu.*sdpa"):
        build(kind)


def test_a_missing_package_is_named(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"needs a CUDA device, but torch finds none.*sdpa"):
        backend_module.check_machine("flashinfer", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(backend_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install flashinfer-python"):
        backend_module.check_machine("flashinfer", cuda)
    monkeypatch.setattr(backend_module.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match=r"8\.0 \(Ampere\) or newer but cuda has 7\.5"):
        backend_module.check_machine("flashinfer", cuda)


def real_callable(module, name):
    """The real package's function or method of that dotted name; a class stands for its constructor."""
    found = module
    for part in name.split("."):
        found = getattr(found, part)
    return found.__init__ if inspect.isclass(found) else found


@pytest.fixture(scope="module")
def real():
    if importlib.util.find_spec("flashinfer") is None:
        pytest.skip("the package flashinfer is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the package warns of is not ours
        import flashinfer
    return flashinfer


def test_our_calls_bind_to_the_real_signatures(machine, real):
    """Every call that the tests above make, with the arguments as given."""
    for kind in (FlashInferBackend, FlashInferBatchAttention):
        served = Served(build(kind))
        for hidden in (0, 3):
            rows, dense = zip(*[served.row(5, 1), served.row(4, 3, hidden)], strict=True)
            served.compare(Step.pack(rows, PAGE), dense)
    names = {name for name, _, _ in machine.calls}
    assert len(names) == 10, "three classes with plan and run, and append_paged_kv_cache"
    for name, args, kwargs in machine.calls:
        bound = args if name[0].islower() else (None, *args)
        signature = inspect.signature(real_callable(real, name))
        signature.bind(*bound, **kwargs)
        if name == "BatchDecodeWithPagedKVCacheWrapper.plan":  # takes **kwargs; what it hands them to names them
            inspect.signature(real.BatchDecodeWithPagedKVCacheWrapper._plan_impl).bind(*bound, **kwargs)


@pytest.mark.parametrize(
    "name",
    [f"{wrapper}{part}"
     for wrapper in ("BatchDecodeWithPagedKVCacheWrapper", "BatchPrefillWithPagedKVCacheWrapper", "BatchAttention")
     for part in ("", ".plan", ".run")] + ["append_paged_kv_cache"],
)  # fmt: skip
def test_the_stand_in_has_the_real_signature(real, name):
    """Same names in the same order; the stand-in may lack the last ones."""
    ours, theirs = (list(inspect.signature(real_callable(module, name)).parameters.values()) for module in (fake, real))
    positional = [p.name for p in ours if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert positional == [p.name for p in theirs][: len(positional)]
    kinds = {p.name: (p.kind, p.default is inspect.Parameter.empty) for p in theirs}
    assert all(kinds[p.name] == (p.kind, p.default is inspect.Parameter.empty) for p in ours)
