"""Pretrains the embedded world's language model on text alone: ``python -m mmbridge.recipes.world_llm OUT``.

A Llama-shaped decoder with its own tokenizer and chat template, trained on ``data/world/corpus.py``. It never sees a
picture. ``torchrun --nproc-per-node 2 -m mmbridge.recipes.world_llm OUT`` uses two cores better than two threads do. At
the end it reports the held-out perplexity and the accuracy on held-out text-only questions, which bounds what any
bridge onto it can reach (``report.json``).

The shipped weights were made in four goes on two cores, 95 minutes in all: this script for 37 of the first 55 minutes;
ten minutes of what is now the third lesson, on one core; then ``--go-on FOLDER --first 3 --seed 1 --minutes 30`` cut at
21, and ``--go-on FOLDER --first 3 --seed 2 --minutes 29 --lr 2e-3`` to its end. One go over all lessons is what the
defaults do, and has not been run.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mmbridge.data.world.corpus import LESSONS, question_about_text, quiz
from mmbridge.data.world.quiz import Quiz
from mmbridge.recipes.world_pretraining import best_device, optimise, save_bfloat16
from mmbridge.recipes.world_rows import ASSISTANT, BOS, END, PAD, SYSTEM, USER, Rows, rows, text

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
VOCABULARY = 1280
ROW = 192
"""Positions of a training row."""


def train_tokenizer(quizzes: int = 20_000) -> PreTrainedTokenizerFast:
    """Lower-casing byte-level BPE over the corpus."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True)]
    )
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BOS, END, USER, ASSISTANT, SYSTEM],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    read = (quiz(0, index) for index in range(quizzes))
    core.train_from_iterator((words for one in read for words in (one.told, *_said(one))), trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core, pad_token=PAD, bos_token=BOS, eos_token=END, model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _said(one: Quiz) -> Iterator[str]:
    return (words for talk in one.talks for _, words in talk)


def taught(
    tokenizer: PreTrainedTokenizerFast, shape: tuple[int, int], minutes: float, seed: int, first: int = 0
) -> Iterator[Rows]:
    """The lessons from the ``first`` on, each for its share of the time."""
    began, share, whole = time.monotonic(), 0.0, sum(share for share, _ in LESSONS[first:])
    for lesson in range(first, len(LESSONS)):
        share += LESSONS[lesson][0] / whole
        for batch in rows(tokenizer, shape, lesson=lesson, seed=seed):
            yield batch
            if (time.monotonic() - began) / 60 > share * minutes and lesson < len(LESSONS) - 1:
                print(f"lesson {lesson + 1} ends", flush=True)
                break


class Pretraining:
    """The loss on what the assistant says."""

    def __init__(self, model: LlamaForCausalLM, device: torch.device) -> None:
        self.model, self.device = model, device
        model.set_attn_implementation("eager")  # takes the rows' mask, and is faster backwards on a CPU in bfloat16

    def each(self, batch: Rows) -> Tensor:
        """The cross-entropy of every answer token, (N,)."""
        batch = Rows(*(tensor.to(self.device) for tensor in batch))
        states = self.model.model(
            input_ids=batch.ids, attention_mask=batch.mask(), position_ids=batch.positions, use_cache=False
        ).last_hidden_state
        asked = batch.answers[:, 1:].bool()
        logits, targets = self.model.lm_head(states[:, :-1][asked]).float(), batch.ids[:, 1:][asked]
        return F.cross_entropy(logits, targets, reduction="none")

    def __call__(self, batch: Rows) -> dict[str, Tensor]:
        return {"loss": self.each(batch).mean()}


@torch.no_grad()
def perplexity(task: Pretraining, tokenizer: PreTrainedTokenizerFast, batches: int = 40) -> float:
    """Held-out perplexity of what the assistant says."""
    stream = rows(tokenizer, (32, ROW), held_out=True)
    return float(torch.cat([task.each(next(stream)) for _ in range(batches)]).mean().exp())


@torch.no_grad()
def text_accuracy(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int, device: torch.device
) -> dict[str, float]:
    """Exact answers to held-out questions about described scenes: over all, and by kind of question."""
    asked = [question_about_text(0, i) for i in range(count)]
    tokenizer.padding_side = "left"
    right: dict[str, list[bool]] = {}
    for start in range(0, count, 250):
        part = asked[start : start + 250]
        prompts = [text(told, (("user", question),)) + ASSISTANT for told, question, _, _ in part]
        encoded = tokenizer(prompts, add_special_tokens=False, padding=True, return_tensors="pt").to(device)
        encoded.pop("token_type_ids", None)
        written = model.generate(  # type: ignore[misc]
            **encoded, max_new_tokens=8, do_sample=False
        )
        texts = tokenizer.batch_decode(written[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
        for said, (_, _, answers, kind) in zip(texts, part, strict=True):
            right.setdefault(kind, []).append(said.strip() in answers)
    tokenizer.padding_side = "right"
    by_kind = {kind: float(np.mean(found)) for kind, found in sorted(right.items())}
    return {"text_vqa": float(np.mean([hit for found in right.values() for hit in found])), **by_kind}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=60, help="training time")
    parser.add_argument("--rows", type=int, default=20, help="rows a batch and process")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--go-on", type=Path, help="a folder whose weights and tokenizer to go on from")
    parser.add_argument("--first", type=int, default=0, help="the lesson to begin with, from 0")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights and of the corpus")
    given = parser.parse_args()

    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if ranks > 1 else 0
    torch.manual_seed(given.seed)
    device = best_device()
    given.out.mkdir(parents=True, exist_ok=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(given.go_on) if given.go_on else train_tokenizer()
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=6, max_position_embeddings=1024, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = (
        LlamaForCausalLM.from_pretrained(given.go_on, dtype=torch.float32) if given.go_on else LlamaForCausalLM(config)
    )
    model.config.dtype = "bfloat16"  # what the saved weights are in
    model.to(device)  # type: ignore[arg-type]
    task = Pretraining(model, device)

    def save() -> None:
        if rank == 0:
            state = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
            save_bfloat16(state, given.out / "model.safetensors")

    if rank == 0:
        print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)
        tokenizer.save_pretrained(given.out)
        model.config.save_pretrained(given.out)
        model.generation_config.save_pretrained(given.out)
    stream = taught(tokenizer, (given.rows, ROW), given.minutes, seed=ranks * given.seed + rank, first=given.first)
    steps = optimise(model, stream, task, minutes=given.minutes, lr=given.lr, save=save)
    if ranks > 1:
        dist.destroy_process_group()
    if rank:
        return

    model = LlamaForCausalLM.from_pretrained(given.out, dtype=torch.float32)
    model.to(device)  # type: ignore[arg-type]
    model.eval()  # type: ignore[no-untyped-call]
    report = {
        "steps": steps,
        "perplexity": perplexity(Pretraining(model, device), tokenizer),
        "accuracy": text_accuracy(model, tokenizer, 4000, device),
    }
    (given.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
