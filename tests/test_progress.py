"""What whoever waits for training sees."""

from dataclasses import replace
from io import StringIO

from rich.console import Console

from mmbridge.loop import Step
from mmbridge.progress import TrainingProgress

STEP = Step(
    number=1,
    left_out="",
    loss=1.0,
    losses={},
    lr=0.1,
    grad_norm=1.0,
    samples=8,
    tokens=30,
    perceptual=128,
    needed_flops=10**9,
    executed_flops=10**9,
    peak_flops=None,
    seconds=0.5,
)


def shown(terminal: bool, step: Step = STEP) -> str:
    file = StringIO()
    with TrainingProgress("align", 7, 3, Console(file=file, width=100, force_terminal=terminal)) as progress:
        for number in range(1, 8):
            progress.step(replace(step, number=number, loss=float(number)))
            if number == 4:
                progress.say("validation/loss 0.5000")
    return file.getvalue()


def test_plain_lines_where_nobody_watches() -> None:
    lines = [line.rsplit("  ", 1)[0] for line in shown(terminal=False).splitlines()]
    assert lines == [
        "align  step 1/7  loss 1.0000  16 samples/s",
        "align  step 3/7  loss 2.5000  16 samples/s",
        "align",  # validation
        "align  step 6/7  loss 5.0000  16 samples/s",
        "align  step 7/7  loss 7.0000  16 samples/s",
    ]
    assert "align  validation/loss 0.5000" in shown(terminal=False)
    assert shown(terminal=False).splitlines()[-1].endswith("0:00:00 left")


def test_needed_mfu_where_it_is_known() -> None:
    lines = shown(terminal=False, step=replace(STEP, peak_flops=2.5e9)).splitlines()
    assert lines[1].startswith("align  step 3/7  loss 2.5000  16 samples/s  40% needed-MFU  ")


def test_a_bar_on_a_terminal() -> None:
    text = shown(terminal=True)
    assert "7/7" in text
    assert "loss 7.0000  16 samples/s  0:00:00 left" in text
    assert "validation/loss 0.5000" in text
