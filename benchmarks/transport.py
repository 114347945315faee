"""Assignment prediction over a large vocabulary: ``python benchmarks/transport.py``.

A step of VLAP's loss, forward and backward, over random bfloat16 word embeddings: memory beyond the table itself, CPU
seconds, iterations and residuals, each way to assign in a process of its own. Captions are means of a few words, media
those and as much noise; the sizes are a large LLM's and T5-base's, VLAP's own.

Then the residuals over the embedded world's LLM: captions as the mean of its last hidden states, media as vectors of
random direction, which is what an untrained connector gives. Word frequencies are Zipf's there, and those of the
captions here, each over its largest. Writes ``results/transport.json``.
"""

import argparse
from collections.abc import Mapping
from itertools import product
from typing import Any

import torch
from cost import cost, median
from record import Record
from torch import Tensor

from mmbridge.data.world.language import caption
from mmbridge.data.world.scene import sample_scene
from mmbridge.llm.config import LLMConfig
from mmbridge.transport.assignment import AssignmentPrediction, assigned, released, word_marginal
from mmbridge.transport.prototypes import cosines

SIZES = ((150_000, 4096), (32_128, 768))
"""Words and their width."""
WORDS_OF_A_CAPTION = 10
EPSILON = 0.01
WAYS: Mapping[str, Mapping[str, Any]] = {
    "3 iterations": {"iterations": 3},
    "to 1e-4": {"iterations": None, "tolerance": 1e-4},
    "released": {"as_released": True},
}
"""Options of ``AssignmentPrediction``."""


def step(words: int, width: int, samples: int, threads: int, way: str) -> dict[str, float]:
    """What a step costs, the table and the vectors being there already."""
    torch.set_num_threads(threads)
    draw = torch.Generator().manual_seed(0)
    table = torch.empty(words, width, dtype=torch.bfloat16).normal_(generator=draw)
    mine = torch.randint(words, (samples, WORDS_OF_A_CAPTION), generator=draw)
    captions = table[mine].float().mean(1)
    media = (captions + captions.std() * torch.randn(captions.shape, generator=draw)).requires_grad_()
    marginal = word_marginal(1 / torch.arange(1, words + 1))

    def work() -> Any:
        found = AssignmentPrediction(table, marginal, epsilon=EPSILON, **WAYS[way])(media, captions)
        found.losses.mean().backward()  # type: ignore[no-untyped-call]
        return found

    found, seconds, grown = cost(work)
    return {
        "GiB beyond the table": grown / 2**30,
        "CPU seconds": seconds,
        "iterations": found.iterations,
        "residual": found.residual,
        "loss": float(found.losses.detach().mean()),
    }


def world(samples: int) -> dict[str, Any]:
    """Residuals of every way to assign over the words of the embedded world's LLM."""
    llm = LLMConfig(path="world:llm").build()
    texts = [caption(sample_scene("train", 0, index)) for index in range(samples)]
    tokenizer: Any = llm.tokenizer
    given = tokenizer(texts, return_tensors="pt", padding=True)
    ids, mask = given["input_ids"], given["attention_mask"]
    with torch.no_grad():
        states = llm.model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1].float()
    words: Any = llm.model.get_input_embeddings()
    table = words.weight.detach()
    counts = torch.bincount(ids[mask.bool()], minlength=len(table)).float()
    vectors = {
        "captions": (states * mask[..., None]).sum(1),
        "random": torch.randn(samples, table.shape[1], generator=torch.Generator().manual_seed(0)),
    }
    uniform = torch.full((len(table),), 1 / len(table))
    marginals = {"uniform": uniform, "frequencies": word_marginal(counts / counts.max())}
    rows = {
        f"{name}, {kind}": residuals(cosines(each, table), marginal)
        for name, each in vectors.items()
        for kind, marginal in marginals.items()
    }
    return {"words": len(table), "samples": samples, "rows": rows}


def residuals(scores: Tensor, marginal: Tensor) -> dict[str, float]:
    """Of three iterations and of the released form; iterations to 1e-4 and to 1e-6."""
    found: dict[str, float] = {"largest cosine": float(scores.max())}
    for count in (1, 3, 10, 100):
        found[f"residual after {count}"] = assigned(scores, marginal, epsilon=EPSILON, iterations=count).residual
    found["residual as released"] = released(scores, marginal, epsilon=EPSILON).residual
    for tolerance in (1e-4, 1e-6):
        run = assigned(scores, marginal, epsilon=EPSILON, iterations=None, tolerance=tolerance)
        found |= {f"iterations to {tolerance:.0e}": run.iterations, f"residual at {tolerance:.0e}": run.residual}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    record = Record("transport")
    for (words, width), way in product(SIZES, WAYS):
        key = f"{way}, {words} × {width}, {given.samples} samples, threads: {given.threads}"
        if key not in record.figures:
            record.keep(key, median(1, step, words, width, given.samples, given.threads, way))
        print(key, *(f"  {name:<28}{figure:.6g}" for name, figure in record.figures[key].items()), sep="\n")
    record.keep("world:llm", world(given.samples))
    for name, row in record.figures["world:llm"]["rows"].items():
        print(name, *(f"  {key:<28}{figure:.6g}" for key, figure in row.items()), sep="\n")


if __name__ == "__main__":
    main()
