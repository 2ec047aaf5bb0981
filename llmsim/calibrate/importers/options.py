"""What whoever imports a file of measurements says about it, and what of a calibration follows from that.

Measurements hold times. How much KV cache there is, how long a sequence may be and what the host adds are given, or
planned from the shape of the model and the size of the card, or the import is refused: none of them is assumed.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, fields
from pathlib import Path

from llmsim.calibrate.importers.engines import engine_named
from llmsim.calibrate.importers.gpus import GPUS
from llmsim.calibrate.importers.memory_plan import VALUE_BYTES, plan_memory
from llmsim.costs.models import ModelConfig, list_models, load_model
from llmsim.costs.records import HostOverhead, KvMemory, LengthLimit
from llmsim.errors import CalibrationError, CapacityError, slip_of

DEFAULT_SHARE = 0.9
"""Of a card's memory, as vLLM takes unless told otherwise."""

_NAMES = ("device", "checked")
"""Options that no path can stand for; of a path only the name goes into a file."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What a file of measurements does not say; each field is an option of `llmsim calibrations import`.

    `model` is a shipped shape's name, the path of a config.json, or a mere name; `tp` the degree of tensor parallelism.
    `block_size` and `max_model_len` in tokens, `block_bytes` in bytes, `host_us` in microseconds an iteration. `like`
    is the path of a layer profile (its files' common part) that fills what kernel tables lack, `all_reduce` of a table
    of all-reduces; `checked` says which run of a server the result was held against. None: not given. Raises
    CalibrationError for a name that cannot be a calibration's, and for numbers that are not positive.
    """

    device: str
    model: str
    tp: int = 1
    num_blocks: int | None = None
    block_size: int = 16
    block_bytes: int | None = None
    max_model_len: int | None = None
    host_us: float | None = None
    engine: str | None = None
    like: str | None = None
    all_reduce: str | None = None
    checked: str | None = None

    def __post_init__(self) -> None:
        """Check each value by itself."""
        for name in ("device", "model"):
            given: str = getattr(self, name)
            if not _NAME.fullmatch(given) and not (name == "model" and given.endswith(".json")):
                raise CalibrationError(
                    f"--{name} must be lower-case letters, digits, '-', '_' and '.' but got {given!r}; it becomes half "
                    f"of the calibration's name, such as {_plain(given)!r}"
                )
        for name in ("tp", "num_blocks", "block_size", "block_bytes", "max_model_len", "host_us"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise CalibrationError(f"--{name.replace('_', '-')} must be above 0 but got {value:g}")

    def shape(self) -> ModelConfig | None:
        """The shape of the model, None for a mere name. Raises ConfigError for a config.json that cannot be used."""
        known = self.model.endswith(".json") or self.model in list_models()
        return load_model(self.model) if known else None

    def model_name(self) -> str:
        """What the calibration calls the model: the shape's name, with -tpN where N cards share it."""
        shape = self.shape()
        name = self.model if shape is None else shape.name
        return name if self.tp == 1 else f"{name}-tp{self.tp}"

    def command(self, source: str, path: Path) -> str:
        """The command that makes the same file again; `path` shrinks to its name."""
        words = ["llmsim", "calibrations", "import", path.name, "--from", source]
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                plain = f"{value:g}" if isinstance(value, float) else str(value)
                words += [f"--{field.name.replace('_', '-')}", plain if field.name in _NAMES else Path(plain).name]
        return shlex.join([*words, "--out", f"calibrations/{self.device}/{self.model_name()}.json"])


def kv_memory(options: ImportOptions) -> KvMemory:
    """The KV cache: the blocks that were given, else a memory plan of the card in bf16.

    Raises CalibrationError where neither can be had, and CapacityError where the model does not fit the card.
    """
    shape = options.shape()
    if options.num_blocks is None:
        return _planned(options, shape)
    source = f"--num-blocks {options.num_blocks}, given at the import."
    if options.block_bytes is not None:
        block_bytes, source = options.block_bytes, f"{source} --block-bytes, too."
    elif shape is not None:
        block_bytes = options.block_size * shape.kv_token_bytes(VALUE_BYTES) // options.tp
        source = f"{source} Bytes of a block: the shape of {shape.name} in bf16, a card."
    else:
        raise CalibrationError(
            f"--block-bytes is needed: {options.model!r} is no shipped shape, so that the bytes of a KV block "
            f"are not known.{slip_of(options.model, list_models())} Or give --model the path of its config.json"
        )
    return KvMemory(
        block_size=options.block_size, num_blocks=options.num_blocks, block_bytes=block_bytes, source=source
    )


def _planned(options: ImportOptions, shape: ModelConfig | None) -> KvMemory:
    gpu = GPUS.get(options.device)
    if shape is None or gpu is None:
        missing = (
            f"nothing is known of a GPU {options.device!r} (known: {', '.join(GPUS)})"
            if gpu is None
            else f"{options.model!r} is no shape (shipped: {', '.join(list_models())}; or the path of a config.json)"
        )
        raise CalibrationError(
            f"--num-blocks is needed: the memory cannot be planned, because {missing}. vLLM prints 'GPU KV cache size: "
            f"N tokens' when it starts: N / {options.block_size} blocks"
        )
    share = engine_named(options.engine).gpu_memory_utilization if options.engine else DEFAULT_SHARE
    try:
        plan = plan_memory(
            shape, gpu, tensor_parallel=options.tp, utilisation=share, block_size=options.block_size
        )
    except CapacityError as error:
        raise CapacityError(f"{error}. If an engine did hold it, give the --num-blocks that it printed") from error
    return KvMemory(
        block_size=options.block_size, num_blocks=plan.num_blocks, block_bytes=plan.block_bytes, source=plan.text
    )


def length_limit(options: ImportOptions) -> LengthLimit:
    """The longest sequence in tokens: as given, else the model's own; CalibrationError where neither is known."""
    shape = options.shape()
    if shape is None:
        if options.max_model_len is None:
            raise CalibrationError(
                f"--max-model-len is needed: {options.model!r} is no shipped shape, so that its longest sequence is "
                f"not known.{slip_of(options.model, list_models())} Or give --model the path of its config.json"
            )
        return LengthLimit(
            max_model_len=options.max_model_len,
            native_max_model_len=options.max_model_len,
            source="--max-model-len, given at the import; the model's own limit is not known and put as the same.",
        )
    native = shape.max_model_len
    given = options.max_model_len or native
    source = f"max_position_embeddings of {shape.name}" + ("." if given == native else "; set by --max-model-len.")
    return LengthLimit(max_model_len=given, native_max_model_len=native, source=source)


def host_overhead(options: ImportOptions, what: str) -> HostOverhead:
    """The given seconds an iteration; `what` says what they stand for. Raises CalibrationError if none were given."""
    if options.host_us is None:
        raise CalibrationError(
            f"--host-us is needed: the file does not hold {what}. Give their microseconds an iteration: what a decode "
            "step takes in the engine's own log or trace, less the measured forward"
        )
    source = f"--host-us {options.host_us:g}, given at the import for {what}."
    return HostOverhead(seconds=options.host_us / 1e6, included_in_batch_times=False, source=source)


def _plain(given: str) -> str:
    """The nearest name that would do."""
    return re.sub(r"[^a-z0-9._]+", "-", given.rstrip("/").rpartition("/")[2].lower()).strip("-.") or "my-model"
