"""The share of its devices' peak that a run's needed FLOPs come to: names, rates by hand, processes, a whole run."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn

from mmbridge import peak
from mmbridge.objectives.next_token import NextToken
from mmbridge.peak import PEAKS, Peak, bridge_rate, joint_rate, needed_mfu, peak_of, rate
from mmbridge.ranks import ALONE, Ranks, together
from mmbridge.train import train
from tests import processes
from tests.test_resume import at_call, crash
from tests.test_train import lines
from tests.tiny_bridge import tiny_recipe, tiny_stage

A100, GEFORCE = "NVIDIA A100-SXM4-80GB", "NVIDIA GeForce RTX 4090"


@pytest.fixture
def matmul() -> Iterator[Any]:
    """torch's setting of float32 products, put back afterwards."""
    kept = torch.backends.cuda.matmul.fp32_precision
    yield torch.backends.cuda.matmul
    torch.backends.cuda.matmul.fp32_precision = kept


@pytest.mark.parametrize(
    ("name", "half"),
    [
        ("NVIDIA A100-SXM4-40GB", 312),
        ("A100-SXM4-40GB", 312),  # as older drivers have it
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A800-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA H800", 989.4),
        ("NVIDIA B200", 2250),
        ("NVIDIA L4", 121),
        ("NVIDIA L40", 181.05),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA A10", 125),
        ("NVIDIA A40", 149.7),
        ("NVIDIA RTX A6000", 154.8),
        ("NVIDIA GeForce RTX 3090", 71),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 5090", 209.5),
        ("Tesla V100-SXM2-16GB", None),
        ("Tesla T4", None),
    ],
)
def test_devices_are_known_by_torchs_names(name: str, half: float | None) -> None:
    found = peak_of(name)
    assert found is not None
    assert found.half == half


@pytest.mark.parametrize(
    "name",
    [
        "",
        "NVIDIA A10G",
        "NVIDIA A100-SXM-64GB",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA A40-48Q",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA H100 64GB HBM2",
        "AMD Instinct MI300X",
    ],
)
def test_a_name_that_only_begins_like_a_known_one_is_not_known(name: str) -> None:
    assert peak_of(name) is None


def test_rates_of_a_device_keep_their_order() -> None:
    """What no data sheet contradicts: TF32 is no slower than float32, and half formats take half its time."""
    for name, each in PEAKS.items():
        if each.tf32 is not None and each.half is not None:
            assert each.float32 <= each.tf32 <= each.half / 1.97, name


def test_float32_is_as_fast_as_torch_is_set_to_compute_it(matmul: Any) -> None:
    a100, t4 = Peak(19.5, 156, 312), Peak(8.1)
    matmul.fp32_precision = "ieee"
    assert (rate(a100, torch.float32), rate(a100, torch.bfloat16)) == (19.5e12, 312e12)
    matmul.allow_tf32 = True  # the older name of the same setting
    assert (rate(a100, torch.float32), rate(a100, torch.float16)) == (156e12, 312e12)
    assert (rate(t4, torch.float32), rate(t4, torch.bfloat16), rate(a100, torch.int8)) == (8.1e12, None, None)


class Parts(nn.Module):
    """A bridge on some device whose weights are in these formats."""

    def __init__(self, *formats: torch.dtype) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(2).to(each), False) for each in formats)
        self.device = torch.device("cpu")


@pytest.fixture
def on_a100(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "device_name", lambda device: A100)


@pytest.mark.usefixtures("on_a100")
@pytest.mark.parametrize(
    ("formats", "autocast", "expected"),
    [
        ([torch.float32], False, 19.5e12),
        ([torch.float32], True, 312e12),
        ([torch.float32, torch.bfloat16], False, 312e12),  # a frozen LLM in bfloat16
        ([torch.float32, torch.uint8], False, 19.5e12),  # one in NF4
        ([torch.float32, torch.int8], True, None),
    ],
)
def test_the_rate_is_that_of_the_fastest_format_computed_in(
    formats: list[torch.dtype], autocast: bool, expected: float | None, matmul: Any
) -> None:
    matmul.fp32_precision = "ieee"
    bridge: Any = Parts(*formats)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert bridge_rate(bridge) == expected


def test_a_cpu_has_no_known_rate() -> None:
    bridge: Any = Parts(torch.float32)
    assert bridge_rate(bridge) is None
    assert joint_rate(engine(bridge, ALONE)) is None


def engine(bridge: Any, ranks: Ranks) -> Any:
    def precision() -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16)

    return SimpleNamespace(bridge=bridge, ranks=ranks, precision=precision)


def joint_rates(*each: list[str]) -> list[float | None]:
    """In a process of several: their joint rates, where each has the device that a list has at its rank."""
    found = []
    with together() as ranks:
        for names in each:
            with patch.object(peak, "device_name", lambda device, name=names[ranks.rank]: name):
                found.append(joint_rate(engine(Parts(torch.float32), ranks)))
    return found


def test_devices_of_all_processes_are_counted(tmp_path: Path) -> None:
    found = processes.together(joint_rates, [A100, A100], [A100, GEFORCE], [A100, "unknown"], folder=tmp_path)
    assert found == [2 * 312e12, (312 + 165.2) * 1e12, None]


def test_the_share_by_hand() -> None:
    """10^15 FLOPs needed in 4 s on two devices of 312 TFLOP/s: 250 of 624 TFLOP/s."""
    assert needed_mfu(10**15, 4 * 2 * 312e12) == {"needed_mfu": pytest.approx(250 / 624)}
    assert needed_mfu(10**15, 312e12, 3 * 312e12) == {"needed_mfu": pytest.approx(10**15 / (4 * 312e12))}
    assert needed_mfu(10**15, 312e12, None) == needed_mfu(10**15, None) == needed_mfu(0) == {}


def shares(folder: Path) -> list[float]:
    """Of a stage's steps, each held against the figures beside it."""
    steps = lines(folder)
    for step in steps:
        assert step["needed_mfu"] == pytest.approx(step["needed_tflops_per_second"] / 312)
    return [step["needed_mfu"] for step in steps]


@pytest.mark.usefixtures("on_a100")
def test_a_run_reports_it_by_step_and_stage(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny_recipe(parts, tiny_stage(precision="bfloat16", steps=4, checkpoint={"every": 2}))
    with monkeypatch.context() as patched:
        patched.setattr(NextToken, "terms", at_call(4, crash))
        with pytest.raises(MemoryError):
            train(recipe, tmp_path / "run")
    train(recipe, tmp_path / "run", resume=True)
    stage = tmp_path / "run" / "stages" / "align"
    summary = json.loads((stage / "metrics.json").read_text())
    assert min(shares(stage)) <= summary["needed_mfu"] <= max(shares(stage))
    assert summary["needed_mfu"] == pytest.approx(summary["needed_flops"] / summary["seconds"] / 312e12)
    assert "% needed-MFU" in capsys.readouterr().out


def test_a_run_on_a_cpu_says_nothing_of_it(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny_recipe(parts), tmp_path / "run")
    stage = tmp_path / "run" / "stages" / "align"
    assert all("needed_tflops_per_second" in step and "needed_mfu" not in step for step in lines(stage))
    assert "needed_mfu" not in json.loads((stage / "metrics.json").read_text())
    assert "needed-MFU" not in capsys.readouterr().out
