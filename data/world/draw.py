"""Random draws, as everything that writes the embedded world's text makes them."""

import numpy as np

Random = np.random.Generator


def pick(random: Random, *choices: str) -> str:
    """One of the choices, each as likely."""
    return choices[random.integers(len(choices))]
