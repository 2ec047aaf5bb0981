"""How many KV blocks fit a device beside the model: measured on a GPU, given on a CPU."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from llmsim.errors import CapacityError
from llmsim.units import GIB

if TYPE_CHECKING:
    from llmsim.costs.models import ModelConfig
    from llmsim.executors.device import DeviceSpec
    from llmsim.executors.runner import ModelRunner

CPU_KV_BYTES = GIB // 2
"""KV cache on a CPU unless another size is asked for: a choice, as main memory is shared with everything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes: `weights` of the model, `peak` of everything but the KV cache while the largest batch ran, `kv` left.

    `kv` is `num_blocks` blocks of `block_bytes`; `source` says how it came about.
    """

    weights: int
    peak: int
    kv: int
    block_bytes: int
    num_blocks: int
    source: str

    def as_dict(self) -> dict[str, object]:
        """For the manifest."""
        return asdict(self)


def block_bytes(config: ModelConfig, spec: DeviceSpec) -> int:
    """Bytes of one page over all layers."""
    return spec.page_size * config.kv_token_bytes(spec.value_bytes)


def cpu_plan(config: ModelConfig, spec: DeviceSpec, kv_bytes: int | None) -> MemoryPlan:
    """KV memory on a CPU: what was asked for, or half a GiB; CapacityError if weights and cache exceed free memory."""
    weights = config.parameters * spec.value_bytes
    size = block_bytes(config, spec)
    wanted = CPU_KV_BYTES if kv_bytes is None else kv_bytes
    blocks = wanted // size
    free = available_bytes()
    if free is not None and weights + wanted > free:
        raise CapacityError(
            f"{config.name} in {spec.dtype} takes {weights / GIB:.1f} GiB and its KV cache {wanted / GIB:.1f} GiB, but "
            f"{free / GIB:.1f} GiB of memory are free; lower --kv-gib, or choose a smaller model or dtype"
        )
    if blocks < 1:
        raise CapacityError(f"a KV cache of {wanted} bytes holds no block of {size} bytes; raise --kv-gib")
    how = "Chosen (--kv-gib)" if kv_bytes is not None else "The default on a CPU"
    source = f"{how}, not measured: {wanted / GIB:g} GiB in blocks of {size} bytes."
    return MemoryPlan(weights=weights, peak=0, kv=blocks * size, block_bytes=size, num_blocks=blocks, source=source)


def gpu_plan(runner: ModelRunner, peak: int, weights: int, utilisation: float) -> MemoryPlan:
    """KV memory of a GPU: the share `utilisation` of it, less what was in use at the peak of the largest batch.

    `peak` and `weights` are bytes by torch's allocator; what else lies on the card (context, libraries) counts too.
    The blocks are allocated once, to show that they fit. Raises CapacityError if nothing is left.
    """
    import torch

    free, total = torch.cuda.mem_get_info(runner.device)
    outside = total - free - torch.cuda.memory_reserved(runner.device)
    size = block_bytes(runner.config, runner.spec)
    kv = int(total * utilisation) - peak - outside
    if kv < size:
        raise CapacityError(
            f"{runner.config.name} in {runner.spec.dtype} uses {(peak + outside) / GIB:.1f} GiB at its largest batch, "
            f"but {utilisation:.0%} of the card is {total * utilisation / GIB:.1f} GiB: nothing is left for KV"
        )
    blocks = kv // size
    held = sum(layer.numel() * layer.element_size() for layer in runner.attention.kv)
    trial = torch.empty(max(0, blocks * size - held), dtype=torch.uint8, device=runner.device)  # beside the pages held
    del trial
    torch.cuda.empty_cache()
    source = (
        f"Measured: {utilisation:.0%} of {total / GIB:.1f} GiB, less {peak / GIB:.2f} GiB at the peak of the largest "
        f"batch (weights {weights / GIB:.2f} GiB) and {outside / GIB:.2f} GiB outside torch; allocated as a test."
    )
    return MemoryPlan(
        weights=weights, peak=peak + outside, kv=blocks * size, block_bytes=size, num_blocks=blocks, source=source
    )


def available_bytes() -> int | None:
    """Main memory that is free for use, as the kernel estimates it; None where it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def peak_process_bytes() -> int:
    """The most main memory that this process has held."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
