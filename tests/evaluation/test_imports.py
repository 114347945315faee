"""Scoring needs no torch: metrics can be used, and the package imported, without paying for it."""

import subprocess
import sys


def test_metrics_and_the_run_import_without_torch() -> None:
    modules = (
        "bleu bootstrap captions ceilings chair chance cider controls facts flops pope progress report run text vqa"
    )
    names = ", ".join(f"mmbridge.evaluation.{name}" for name in modules.split())
    code = f"import sys, {names}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
