"""Slips of a policy's author: each is one line that names the file and the line, at construction or first use."""

from __future__ import annotations

import copy
import functools
import linecache
import re
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from llmsim import ContinuousBatching, Router
from llmsim.core.contract.names import looks_like
from llmsim.engine.recorder import Observer
from llmsim.errors import ConfigError, SchedulerError
from llmsim.routers.least_tokens import LeastTokens
from llmsim.schedulers.sarathi import Sarathi
from llmsim.spec import registry
from tests.engine.build import serve, workload

TOP = """from dataclasses import dataclass, field
from typing import ClassVar
import numpy as np
from llmsim import Batch, ContinuousBatching, Router, Scheduler, SECOND
from llmsim.schedulers.sarathi import Sarathi

"""
FIRST = TOP.count("\n") + 1


def written(folder, text):
    """The last class of a policy file that holds this text."""
    path = folder / "mine.py"
    path.write_text(TOP + text)
    last = re.findall(r"class (\w+)", text)[-1]
    return f"{path}:{last}"


def scheduler(body, base="ContinuousBatching", decorated=True):
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    return ("@dataclass\n" if decorated else "") + f"class Mine({base}):\n{indented}\n"


def of_router(body):
    return scheduler(body, "Router")


ROUTE = "def route(self, request, replicas, now): return 0\n"
AT_CONSTRUCTION = {
    "typo": (scheduler("def order_wating(self, now): ..."), 3, "Did you mean order_waiting(self, now)?"),
    "camel": (scheduler("def orderWaiting(self, now): ..."), 3, "Did you mean order_waiting"),
    "turned": (scheduler("def waiting_order(self, now): ..."), 3, "Did you mean order_waiting"),
    "on_": (scheduler("def on_finished(self, request): ..."), 3, "Did you mean finished(self, request)"),
    "budget": (scheduler("def chunk_limits(self, request): return 1"), 3, "Did you mean chunk_limit(self, request)"),
    "steady": (scheduler("def steady_iteration(self, batch): return 1"), 3, "Did you mean steady_iterations"),
    "arrivals": (scheduler("def heed_arrivals(self, batch): return True"), 3, "Did you mean heeds_arrivals"),
    "flag": (scheduler("steady_hook = True"), 3, "Did you mean steady_hooks?"),
    "property": (scheduler("@property\ndef reserved_blocks(self): return 3"), 3, "Did you mean reserve_blocks?"),
    "a property": (scheduler("@property\ndef order_wating(self): return 3"), 3, "Did you mean order_waiting"),
    "text": (scheduler("order_wating = 'spf'"), 3, "Did you mean order_waiting"),
    "option": (scheduler("max_num_seq: int = 5"), 3, "Did you mean max_num_seqs?"),
    "schedule": (scheduler("def shedule(self, now): ...", "Scheduler"), 3, "Did you mean schedule(self, now)?"),
    "add": (scheduler("def ad(self, request): ..."), 3, "Did you mean add(self, request)?"),
    "bind": (scheduler("def bnd(self, kv, max_model_len): ..."), 3, "Did you mean bind(self, kv, max_model_len)?"),
    "of sarathi": (scheduler("def order_waitng(self, now): ...", "Sarathi"), 3, "Did you mean order_waiting"),
    "post_init": (scheduler("def __postinit__(self): ..."), 3, "Did you mean __post_init__"),
    "route": (of_router("def rout(self, request, replicas, now): return 0"), 3, "Did you mean route("),
    "answered": (of_router(ROUTE + "def answer(self, request): ..."), 4, "Did you mean answered(self, request)?"),
    "resize": (of_router(ROUTE + "def resise(self, before): ..."), 4, "Did you mean resize(self, before)?"),
    "no schedule": (scheduler("def plan(self, now): ...", "Scheduler"), 2, "Mine has no schedule(self, now)"),
    "no route": (of_router("def plan(self, now): ..."), 2, "has no route(self, request, replicas, now)"),
    "too few": (scheduler("def order_waiting(self): ..."), 3, "takes (self) but is called with (self, now)"),
    "too many": (scheduler("def schedule(self, now, more): ..."), 3, "takes (self, now, more) but is called with"),
    "no self": (scheduler("def chunk_limit(request): return 1"), 3, "takes (request) but is called with"),
    "keyword": (scheduler("def order_waiting(self, *, now): ..."), 3, "takes (self, *, now) but is called with"),
    "router's": (of_router("def route(self, request, replicas): return 0"), 3, "is called with (self, request, repl"),
    "bind of router": (of_router(ROUTE + "def bind(self, replicas): ..."), 4, "takes (self, replicas) but is called"),
    "no method": (scheduler("order_waiting = 'spf'"), 3, "Mine.order_waiting must be a method"),
    "hook as property": (scheduler("@property\ndef schedule(self): ..."), 3, "is a hook, but is a property"),
    "generator": (scheduler("def order_waiting(self, now): yield now"), 3, "without yield and async"),
    "async": (scheduler("async def schedule(self, now): ..."), 3, "without yield and async"),
    "flag as method": (scheduler("def steady_hooks(self): return False"), 3, "must be no method"),
    "property as method": (scheduler("def reserve_blocks(self): return 1"), 3, "put @property above it"),
    "flag as text": (scheduler("paged = 'no'"), 3, "Mine.paged must be True or False but is 'no'"),
    "no @dataclass": (scheduler("taste: float = 1.0", decorated=False), 2, "class Mine lacks @dataclass"),
    "a base": (scheduler("taste: int = 1", "Scheduler", False) + "@dataclass\nclass Two(Mine): ...\n", 2, "Mine lacks"),
    "in a subclass": (scheduler("a: int = 1") + "class Two(Mine):\n    b: int = 2\n", 5, "class Two lacks @dataclass"),
    "field()": (scheduler("taste: list = field(default_factory=list)", decorated=False), 2, "lacks @dataclass"),
    "default": (scheduler("chunk_size = 64"), 3, "write chunk_size: int = 64 in a class with @dataclass"),
    "default, plain": (scheduler("chunk_size = 64", decorated=False), 2, "does not change the option chunk_size"),
    "default, annotated": (scheduler("chunk_size: int = 64", decorated=False), 2, "lacks @dataclass"),
}  # fmt: skip


@pytest.mark.parametrize("slip", AT_CONSTRUCTION)
def test_a_slip_is_refused_at_construction(tmp_path, slip):
    text, line, message = AT_CONSTRUCTION[slip]
    name = written(tmp_path, text)
    kind = "router" if "(Router)" in text else "scheduler"
    with pytest.raises(ConfigError) as caught:
        registry.build(kind, name)
    said = str(caught.value)
    assert f"mine.py:{FIRST + line - 1}: " in said
    assert message in said
    assert "\n" not in said


def test_a_file_that_was_edited_is_read_again(tmp_path):
    for lines in (3, 1):
        text = "\n" * lines + scheduler("steady_hook = True") + "\n" * (9 - lines)
        with pytest.raises(ConfigError, match=f"mine.py:{FIRST + lines + 2}: "):
            registry.build("scheduler", written(tmp_path, text))


HONEST = """
@dataclass
class Mine(ContinuousBatching):
    taste: float = 1.0
    NAMES: ClassVar[dict] = {}
    LIMIT: int = 5
    def route_table(self): ...
    def plan(self, now): ...
    def admit(self, request): ...
    def finish_time(self, request): ...
    def chunk_for(self, request): ...
    def order_key(self, request): ...
    def bid(self, request): ...
    def bin(self, request): ...
    def pad(self, request): ...
    def latest(self): ...
    def unfinished(self): ...
    def _order_wating(self, now): ...
    def __len__(self): return 0
    @staticmethod
    def deadline(request): ...
    @property
    def score(self): ...
    def routes(self, now): ...
    def scheduled(self, now): return now
    def schedule(self, now):
        self.scheduled(now)
        return super().schedule(now)
class Plain(Mine):
    _state: int = 0
    seen: list
    steady_hooks = True
    chunk_limit = staticmethod(lambda request: 64)
    def schedule(self, now, more=None): return super().schedule(now)
    def add(self, *requests): super().add(*requests)
"""


def test_helpers_of_ones_own_are_allowed(tmp_path):
    policy = registry.build("scheduler", written(tmp_path, HONEST))
    assert policy.taste == 1.0


def test_any_kind_of_class_may_be_a_policy():
    @dataclass(slots=True)
    class Slotted(ContinuousBatching):
        taste: int = 1

        def order_waiting(self, now):
            pass

    class WithInit(ContinuousBatching):
        taste: float = 3.0

        def __init__(self, taste=1.0):
            super().__init__()
            self.taste = taste

    class Wrapped(ContinuousBatching):
        @functools.lru_cache(None)  # noqa: B019
        def chunk_limit(self, request):
            return 100

        __hash__ = object.__hash__
        order_waiting = functools.partialmethod(lambda self, now, more: None, more=1)

    for policy in (Slotted(taste=2), WithInit(2), Wrapped()):
        assert copy.copy(policy) == policy
        serve(workload(3), lambda policy=policy: copy.copy(policy))
    with pytest.raises(ConfigError, match=r"give an object of the class: Wrapped\(\)"):
        registry.build("scheduler", Wrapped)


def test_names_are_judged_by_their_letters():
    hooks = dict.fromkeys(["order_waiting", "finished", "answered", "route", "bind", "add", "wake_at"], False)
    near = {"oder_waiting": "order_waiting", "finsihed": "finished", "answer": "answered", "rout": "route",
            "bidn": "bind", "addd": "add", "wake_up_at": "wake_at", "on_add": "add"}  # fmt: skip
    assert {name: looks_like(name, hooks) for name in near} == near
    for name in ("route_table", "plan", "order_prefilling", "find", "bin", "pad", "waiting_time", "reroute"):
        assert looks_like(name, hooks) is None


def policy_of(name, answer, base=ContinuousBatching):
    """A policy whose hook answers this: a value, or what a function of (policy, the base's answer) makes."""

    def hook(self, *given):
        usual = getattr(base, name)(self, *given)
        return answer(usual) if callable(answer) else answer

    return dataclass(type("Mine", (base,), {name: hook, "__module__": __name__}))


@pytest.mark.parametrize(
    ("name", "answer", "message"),
    [
        ("schedule", None, "returned None, not a Batch; end it with `return batch`"),
        ("schedule", lambda batch: [batch], "returned a list, not a Batch"),
        ("schedule", 5, "returned 5, not a Batch"),
        ("steady_iterations", None, "returned None, not a whole number of at least 1"),
        ("steady_iterations", 0, "returned 0, not a whole number of at least 1"),
        ("steady_iterations", 2.0, "returned 2.0, not a whole number"),
        ("order_waiting", [], "returned a list, but its answer is not used; reorder self.waiting itself"),
        ("chunk_limit", None, "returned None, not a whole number"),
        ("chunk_limit", 64.0, "returned 64.0, not a whole number"),
        ("add", 5, "returned 5, but its answer is not used"),
        ("finished", True, "returned True, but its answer is not used"),
        ("wake_at", 1e9, "returned 1000000000.0, not a whole number or None"),
        ("wake_at", 0, "returned 0, but it is 0 ns already; answer later, or None"),
    ],
)
def test_a_wrong_answer_is_refused_at_first_use(name, answer, message):
    with pytest.raises(SchedulerError) as caught:
        serve(workload(3), policy_of(name, answer), num_blocks=90)
    assert message in str(caught.value)
    assert "test_slips.py:" in str(caught.value)


def test_an_answer_that_is_only_sometimes_forgotten_is_refused():
    @dataclass
    class Forgets(ContinuousBatching):
        def heeds_arrivals(self, batch):
            if batch.prefills:
                return False

    with pytest.raises(SchedulerError, match=r"Forgets.heeds_arrivals returned None, not True or False"):
        serve(workload(3), Forgets)


@pytest.mark.parametrize("answer", [np.int64(64), np.int32(64)])
def test_whole_numbers_of_numpy_are_whole_numbers(answer):
    serve(workload(3), policy_of("chunk_limit", answer))
    serve(workload(3), policy_of("steady_iterations", np.int64))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (1.0, "returned 1.0, not an index; answer with an index"),
        (np.float64(1), "not an index"),
        (-1, "returned -1, but there is no replica -1: they are 0 to 1"),
        (2, "returned 2, but there is no replica 2: they are 0 to 1"),
        (None, "returned None, not an index"),
        (True, "returned True, not an index"),
        ("1", "returned '1', not an index"),
        (lambda replicas: replicas[0], "returned a ReplicaView, not an index"),
        (lambda replicas: [0], "returned a list, not an index"),
    ],
)
def test_a_router_must_answer_with_an_index(answer, message):
    class Lost(Router):
        def route(self, request, replicas, now):
            return answer(replicas) if callable(answer) else answer

    with pytest.raises(SchedulerError) as caught:
        serve(workload(3), Sarathi, router=Lost(), replicas=2)
    assert message in str(caught.value)
    assert "test_slips.py:" in str(caught.value)


def test_a_router_may_answer_with_an_int_of_numpy():
    class Lucky(Router):
        def route(self, request, replicas, now):
            return self.rng.integers(len(replicas))

    requests = workload(3)
    serve(requests, Sarathi, router=Lucky(), replicas=2)
    assert {type(request.replica) for request in requests} == {int}


class Peeks(ContinuousBatching):
    def order_waiting(self, now):
        assert self.waiting[0].output_tokens


class PeeksByName(ContinuousBatching):
    def schedule(self, now):
        self.waiting and getattr(self.waiting[-1], "output_" + "tokens")
        return super().schedule(now)


class PeeksAtTheTarget(ContinuousBatching):
    def add(self, request):
        assert request.output_target
        super().add(request)


class PeeksLast(ContinuousBatching):
    def finished(self, request):
        assert request.output_tokens
        super().finished(request)


class RouterPeeks(LeastTokens):
    def route(self, request, replicas, now):
        return request.output_tokens % len(replicas)


class Inherits(RouterPeeks):
    pass


@pytest.mark.parametrize("policy", [Peeks, PeeksByName, PeeksAtTheTarget, PeeksLast, RouterPeeks, Inherits])
def test_the_output_length_is_kept_from_policies_in_a_plain_run(policy):
    options = {"router": policy()} if issubclass(policy, Router) else {}
    requests = workload(3)
    lengths = [request.output_tokens for request in requests]
    with pytest.raises(SchedulerError, match=r"test_slips\.py:\d+: .* may not know the output length") as caught:
        serve(requests, Sarathi if options else policy, replicas=2, **options)
    assert "reads request.output_t" in str(caught.value)
    assert lengths == [request._output_target for request in requests]


def test_observers_and_whoever_looks_later_may_read_the_length():
    class Looks(Observer):
        seen = 0

        def on_batch(self, batch, start_ns, ends, scheduler, kv):
            self.seen += sum(request.output_tokens for request in batch.prefills)

    observer, requests = Looks(), workload(3)

    @dataclass
    class Own(ContinuousBatching):
        pass

    cluster = serve(requests, Own, observer=observer, horizon_ns=2_000_000_000)
    assert observer.seen
    assert cluster.in_flight
    assert all(type(request).__name__ == "Request" and request.output_tokens for request in requests)


class Fails(ContinuousBatching):
    def chunk_limit(self, request):
        return self.helper(request)

    def helper(self, request):
        return 640 // abs(request.id - 5)


def test_a_class_of_a_notebook_is_named_by_its_cell():
    cell = "import llmsim\n\nclass Cell(llmsim.ContinuousBatching):\n    steady_hook = True\n    def f(self): ...\n"
    linecache.cache["<cell 7>"] = (len(cell), None, cell.splitlines(keepends=True), "<cell 7>")
    space = {"__name__": "__main__"}
    exec(compile(cell, "<cell 7>", "exec"), space)
    with pytest.raises(ConfigError, match=r"<cell 7>:4: Cell.steady_hook overrides nothing"):
        space["Cell"]()


class Odd(Exception):
    """SimPy cannot copy it."""

    def __init__(self, one, two):
        super().__init__(f"{one}{two}")


class RaisesOdd(ContinuousBatching):
    def finished(self, request):
        raise Odd(1, 2) from ValueError("why")


@pytest.mark.parametrize(("policy", "error"), [(Fails, ZeroDivisionError), (RaisesOdd, Odd)])
def test_an_error_in_a_policy_is_raised_as_it_is_where_it_is(policy, error):
    with pytest.raises(error) as caught:
        serve(workload(3), policy)
    frames = [entry.frame.f_globals["__name__"] for entry in caught.traceback]
    assert frames[-1] == __name__
    assert not [name for name in frames if name.startswith("simpy")]
    cause = caught.value.__cause__
    assert (isinstance(cause, ValueError) if error is Odd else cause is None)


SERVE = ["simulate", "--trace", "sharegpt4", "--rate", "2", "--num-requests", "30"]


@pytest.mark.parametrize(
    ("body", "ends"),
    [
        ("def chunk_limit(self, request):\n    return 1 // 0", "ZeroDivisionError: "),
        ("def bind(self, kv, n):\n    open('/no/such/file')", "FileNotFoundError: "),
        ("def start_decoding(self, request):\n    self.kv.allocate(request, 10**8)", "error: the policy asked for "),
    ],
)
def test_the_command_line_shows_the_users_own_lines(tmp_path, body, ends):
    name = written(tmp_path, scheduler(body))
    command = [*SERVE, "--calibration", "rtx-6000-ada/mistral-7b", "--scheduler", name]
    ran = subprocess.run([sys.executable, "-m", "llmsim", *command], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 1
    lines = ran.stderr.splitlines()
    assert lines[-1].startswith(ends)
    assert "mine.py" in ran.stderr
    assert f"line {FIRST + 3}, in" in ran.stderr or f"(mine.py:{FIRST + 3})" in ran.stderr
    for ours in ("simpy", "typer", "/llmsim/"):
        assert ours not in ran.stderr
