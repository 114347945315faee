"""Greedy decoding of one sample on a CPU, beside transformers' generate: ``python benchmarks/decoding.py``.

The same weights, prompt, number of new tokens and, which is asserted, the same tokens. A random Llama of the sizes of
``random_llava``. Writes ``results/decoding.json``: seconds and ratios.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from paired import lines, paired
from random_llava import SHAPES, WORDS, Shape, options, write
from record import Record
from transformers import LlavaForConditionalGeneration

from mmbridge.llava import load_llava
from mmbridge.llm.config import GenerationOptions
from mmbridge.llm.prompt import Prompt
from mmbridge.llm.splice import splice

TOKENS = 48


def measured(shape: Shape, rounds: int) -> dict[str, Any]:
    """All figures of a shape."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(len(WORDS), shape.vocabulary, (1, shape.visual), generator=draw)
    with TemporaryDirectory() as folder:
        write(shape, Path(folder))
        llm = load_llava(folder).llm
        model: Any = LlavaForConditionalGeneration.from_pretrained(folder)
    model.eval()
    prompt = Prompt("prompt", tuple(ids[0].tolist()), (False,) * shape.visual, (), "")
    context = splice(llm.embed, [prompt], [[]], side="left", pad_id=llm.pad_id, max_length=1024)
    options, turned = GenerationOptions(max_new_tokens=TOKENS), llm.turned
    ends = llm.ends()

    def theirs() -> list[int]:
        with torch.inference_mode():
            found: Any = model.generate(
                input_ids=ids, max_new_tokens=TOKENS, do_sample=False, eos_token_id=ends, pad_token_id=llm.pad_id
            )
        return [*map(int, found[0, shape.visual :])]

    def ours(weights: Any) -> list[int]:
        llm.turned = weights
        return [*map(int, llm._generated(context, options)[0])]

    plain: Any = SimpleNamespace(of=lambda _: nullcontext())
    variants: dict[str, Callable[[], list[int]]] = {
        "transformers": theirs,
        "mmbridge, weights as they are": lambda: ours(plain),
        "mmbridge": lambda: ours(turned),
    }
    texts = {name: variant() for name, variant in variants.items()}
    assert len(set(map(tuple, texts.values()))) == 1, "expected the same tokens of all"
    return {
        "tokens": len(texts["transformers"]),
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "times": paired(variants, rounds),
    }


def main() -> None:
    given = options(__doc__, 9).parse_args()
    torch.set_num_threads(given.threads)
    record = Record("decoding")
    record.keep(given.shape, measured(SHAPES[given.shape], given.rounds))
    print("\n".join(lines(record.figures[given.shape]["times"])))


if __name__ == "__main__":
    main()
