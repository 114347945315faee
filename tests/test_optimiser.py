"""Parameter groups and the learning rate."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import get_scheduler

from mmbridge.bridge import Bridge
from mmbridge.errors import RecipeError
from mmbridge.optimiser import Rates, hidden_weights, optimisers, schedule
from mmbridge.stage import GroupConfig, OptimConfig, ScheduleConfig
from tests.tiny_bridge import tiny_recipe

HIDDEN = {"connectors.0.weight", "llm.weight"}


def named() -> dict[str, nn.Parameter]:
    module = nn.ModuleDict({"connectors": nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)), "llm": nn.Linear(2, 2)})
    return dict(module.named_parameters())


@pytest.mark.parametrize(
    ("kind", "theirs", "options"),
    [
        ("cosine", "cosine", {}),
        ("linear", "linear", {}),
        ("constant", "constant_with_warmup", {}),
        ("cosine", "cosine_with_min_lr", {"min_lr_rate": 0.2}),
    ],
)
@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 7), (0.03, 50), (5, 20)])
def test_rates_are_those_of_transformers(
    kind: str, theirs: str, options: dict[str, float], warmup: float, steps: int
) -> None:
    config = ScheduleConfig(kind=kind, warmup=warmup, floor=options.get("min_lr_rate", 0.0))
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    counts = {0.0: 0, 0.03: 2, 5: 5}  # transformers rounds fractions up
    reference = get_scheduler(theirs, optimiser, counts[warmup], steps, scheduler_specific_kwargs=options)
    rate = schedule(config, steps)
    for step in range(steps):
        assert rate(step) == pytest.approx(reference.get_last_lr()[0], abs=1e-12)
        optimiser.step()
        reference.step()


def test_linear_decay_ends_at_its_floor() -> None:
    rate = schedule(ScheduleConfig(kind="linear", floor=0.95), 100)
    assert rate(0) == 1.0
    assert rate(50) == pytest.approx(0.975)
    assert rate(100) == pytest.approx(0.95)


def test_the_first_group_that_matches_has_a_parameter_and_only_matrices_decay() -> None:
    parameters = named()
    groups = (GroupConfig(match="connectors.*", lr=0.5), GroupConfig(match="*weight", lr=9.0, weight_decay=0.7))
    config = OptimConfig(lr=0.1, weight_decay=0.01, groups=groups)
    (optimiser,) = optimisers(parameters, HIDDEN, config, "stages.a.optim")
    names = {id(parameter): name for name, parameter in parameters.items()}
    found = [
        (group["lr"], group["weight_decay"], [names[id(each)] for each in group["params"]])
        for group in optimiser.param_groups
    ]
    assert found == [
        (0.5, 0.01, ["connectors.0.weight"]),
        (0.5, 0.0, ["connectors.0.bias", "connectors.1.weight", "connectors.1.bias"]),
        (9.0, 0.7, ["llm.weight"]),
        (0.1, 0.0, ["llm.bias"]),
    ]


def test_every_group_follows_the_schedule() -> None:
    config = OptimConfig(lr=1.0, groups=(GroupConfig(match="llm*", lr=4.0),))
    (optimiser,) = optimisers(named(), HIDDEN, config, "")
    rates = Rates([optimiser], ScheduleConfig(kind="linear", warmup=2), 4)
    for step, factor in enumerate((0.0, 0.5, 1.0, 0.5), start=1):
        lrs = {group["lr"] for group in optimiser.param_groups}
        assert lrs == {factor, 4 * factor}
        rates.go_to(step)


def test_a_pattern_that_matches_nothing_names_what_is_near() -> None:
    config = OptimConfig(lr=1.0, groups=(GroupConfig(match="conectors.*", lr=0.5),))
    with pytest.raises(RecipeError) as caught:
        optimisers(named(), HIDDEN, config, "stages.a.optim")
    assert str(caught.value).startswith(
        "stages.a.optim.groups.0.match: expected a pattern of parameter names, found 'conectors.*', which matches "
        "none; near it are connectors.*"
    )


def test_one_step_is_adamw() -> None:
    """Against the paper's own formula (arXiv 1711.05101, algorithm 2) in float64."""
    weight = nn.Parameter(torch.tensor([[1.0, -2.0]], dtype=torch.float64))
    weight.grad = torch.tensor([[0.3, 0.1]], dtype=torch.float64)
    config = OptimConfig(lr=0.1, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.05)
    (optimiser,) = optimisers({"w": weight}, {"w"}, config, "")
    optimiser.step()
    start, gradient = torch.tensor([[1.0, -2.0]]).double(), torch.tensor([[0.3, 0.1]]).double()
    expected = start - 0.1 * (gradient / (gradient.abs() + 1e-6) + 0.05 * start)
    torch.testing.assert_close(weight.detach(), expected)


def test_muon_has_the_hidden_weights_and_adamw_the_rest() -> None:
    parameters = named()
    groups = (GroupConfig(match="connectors.*", lr=0.5),)
    config = OptimConfig(kind="muon", lr=0.1, weight_decay=0.01, momentum=0.9, groups=groups)
    muon, adamw = optimisers(parameters, {"connectors.0.weight"}, config, "")
    names = {id(parameter): name for name, parameter in parameters.items()}
    found = [
        [(group["lr"], group["weight_decay"], [names[id(each)] for each in group["params"]]) for group in one]
        for one in (muon.param_groups, adamw.param_groups)
    ]
    assert found == [
        [(0.5, 0.01, ["connectors.0.weight"])],
        [
            (0.5, 0.0, ["connectors.0.bias", "connectors.1.weight", "connectors.1.bias"]),
            (0.1, 0.01, ["llm.weight"]),
            (0.1, 0.0, ["llm.bias"]),
        ],
    ]
    assert isinstance(muon, torch.optim.Muon)
    assert muon.defaults["momentum"] == 0.9


def test_hidden_weights_are_linear_maps_without_the_output_head(tmp_path: Path) -> None:
    bridge = Bridge(tiny_recipe(tmp_path))
    found = hidden_weights(bridge)
    assert "connectors.image.projector.linears.0.weight" in found
    assert "llm.model.model.layers.0.mlp.up_proj.weight" in found
    assert not any("embed_tokens" in name or "lm_head" in name or "norm" in name for name in found)


def test_one_step_of_muon_is_orthogonal() -> None:
    """Against the authors' quintic iteration (Jordan et al. 2024) in float64, and arXiv 2502.16982's equation 4.

    torch iterates in bfloat16, so singular values, spread over 0.7 to 1.2 by the iteration, agree to a few percent.
    """
    draw = np.random.default_rng(0)
    start, gradient = draw.standard_normal((2, 6, 4))
    weight = nn.Parameter(torch.from_numpy(start.copy()))
    weight.grad = torch.from_numpy(gradient.copy())
    config = OptimConfig(kind="muon", lr=0.1, momentum=0.9, weight_decay=0.05)
    (optimiser,) = optimisers({"w": weight}, {"w"}, config, "")
    optimiser.step()
    iterate = gradient / np.linalg.norm(gradient)
    for _ in range(5):
        gram = iterate.T @ iterate
        iterate = 3.4445 * iterate + iterate @ (-4.775 * gram + 2.0315 * gram @ gram)
    expected = start - 0.1 * (0.2 * np.sqrt(6) * iterate + 0.05 * start)
    np.testing.assert_allclose(weight.detach().numpy(), expected, atol=0.1 * 0.2 * np.sqrt(6) * 0.05)
    step = start * (1 - 0.1 * 0.05) - weight.detach().numpy()
    values = np.linalg.svd(step / (0.1 * 0.2 * np.sqrt(6)), compute_uv=False)
    assert ((values > 0.6) & (values < 1.3)).all()


def test_momentum_is_muons() -> None:
    with pytest.raises(ValueError, match="momentum: AdamW has betas; leave it out or set kind to muon"):
        OptimConfig(lr=0.1, momentum=0.9)
