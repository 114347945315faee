"""How many FLOPs a second a device reaches at most: what the needed ones are held against in ``needed_mfu``.

Rates are those of dense matrices as the vendor states them, sums in float32. Where a data sheet states the rate with
2:4 sparsity alone, it is halved. Sources, all NVIDIA's:

    A100, A800, V100, T4, A10, A40, L4, L40, L40S   the data sheet of each
    H100 SXM (HBM3) and PCIe                        H100 Tensor Core GPU architecture white paper
    H200, H100 NVL and H200 NVL                     H100 and H200 data sheets; H200's chip is H100 SXM's
    H800 SXM and PCIe                               H800 data sheet: what H100 has, but for float64 and links
    B200                                            Blackwell data sheet, a single GPU of HGX B200
    RTX A6000, RTX 3090                             Ampere GA102 white paper
    RTX 4090                                        Ada GPU architecture white paper
    RTX 5090                                        RTX Blackwell GPU architecture white paper

torch has such a table inside inductor; its H100 is the rate with sparsity, and its names are not those of devices.
"""

import re
from dataclasses import dataclass

import torch

from mmbridge.bridge import Bridge
from mmbridge.engine import Engine


@dataclass(frozen=True, slots=True)
class Peak:
    """TFLOP/s in float32, in float32 by TF32, and in bfloat16 or float16; ``None`` where there are no such cores."""

    float32: float
    tf32: float | None = None
    half: float | None = None


_A100, _H100, _H100_PCIE = Peak(19.5, 156, 312), Peak(66.9, 494.7, 989.4), Peak(51.2, 378, 756)
_NVL = Peak(60, 417.5, 835.5)

PEAKS = {
    "A100 SXM4": _A100,
    "A100 PCIE": _A100,
    "A800 SXM4": _A100,
    "A800 PCIE": _A100,
    "H100 HBM3": _H100,
    "H100 PCIE": _H100_PCIE,
    "H100 NVL": _NVL,
    "H200": _H100,
    "H200 NVL": _NVL,
    "H800": _H100,
    "H800 PCIE": _H100_PCIE,
    "B200": Peak(75, 1100, 2250),
    "L4": Peak(30.3, 60, 121),
    "L40": Peak(90.5, 90.5, 181.05),
    "L40S": Peak(91.6, 183, 362.05),
    "A10": Peak(31.2, 62.5, 125),
    "A40": Peak(37.4, 74.8, 149.7),
    "RTX A6000": Peak(38.7, 77.4, 154.8),
    "RTX 3090": Peak(35.6, 35.6, 71),
    "RTX 4090": Peak(82.6, 82.6, 165.2),
    "RTX 5090": Peak(104.8, 104.8, 209.5),
    "V100 SXM2": Peak(15.7),
    "V100 PCIE": Peak(14),
    "T4": Peak(8.1),
}
"""By name, without maker, brand and size of the memory."""

_BESIDE = re.compile(r"\b(NVIDIA|Tesla|GeForce|\d+GB)\b")


def peak_of(name: str) -> Peak | None:
    """The rates of the device that torch calls so, such as ``NVIDIA A100-SXM4-80GB``; ``None`` where none are known.

    The whole name must be known: an A10G, an ``RTX 4090 Laptop GPU`` and a slice of an A100 have other rates than the
    devices that their names begin with.
    """
    return PEAKS.get(" ".join(_BESIDE.sub(" ", name).replace("-", " ").upper().split()))


def device_name(device: torch.device) -> str:
    """As torch has it; empty for what is no GPU of CUDA's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def rate(peak: Peak, dtype: torch.dtype) -> float | None:
    """FLOP/s of products in this format, by torch's settings; ``None`` where it is not known."""
    if dtype == torch.float32:
        found = peak.tf32 if torch.backends.cuda.matmul.fp32_precision == "tf32" else None
        found = found or peak.float32
    else:
        found = peak.half if dtype in (torch.bfloat16, torch.float16) else None
    return found and found * 1e12


def bridge_rate(bridge: Bridge) -> float | None:
    """FLOP/s that the bridge's device reaches at most in what the bridge computes in here, autocast or not.

    Where its parts compute in several formats it is the rate of the fastest, so that ``needed_mfu`` is never flattered;
    ``None`` where that of one is not known, as of int8. Weights of 4 bits are unpacked before they are multiplied.
    """
    peak, kind = peak_of(device_name(bridge.device)), bridge.device.type
    if peak is None:
        return None
    cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    formats = {cast if cast and each.is_floating_point() else each.dtype for each in bridge.parameters()}
    rates = [rate(peak, each) for each in formats - {torch.uint8}]
    return max(each for each in rates if each) if all(rates) else None


def joint_rate(engine: Engine) -> float | None:
    """FLOP/s of the devices of all processes together, at most; ``None`` where that of one is not known.

    Every process calls this.
    """
    with engine.precision():
        own = bridge_rate(engine.bridge)
    if engine.ranks.any(own is None):
        return None
    return engine.ranks.total([own or 0.0])[0]


def needed_mfu(needed: float, *peaks: float | None) -> dict[str, float]:
    """The needed FLOPs' share of those that devices could have executed, in all; nothing where some are not known."""
    known = [each for each in peaks if each]
    return {"needed_mfu": needed / sum(known)} if 0 < len(known) == len(peaks) else {}
