"""A bridge on disk: a folder that holds all that its frozen sources do not.

    recipe.yaml           the recipe, fully resolved
    bridge.safetensors    every parameter and buffer that cannot be rebuilt from the frozen sources; in several files
                          with an index when large
    config.json           version of this format, the frozen sources and hashes of their contents, what was unfrozen
    mask.safetensors      the LLM's weight mask, where it has one; read from here, wherever the recipe has it from
    metrics.json          what was measured when its last stage ended
    README.md             the model card

Placeholders are added to the tokenizer again whenever one is loaded, so no tokenizer is kept. Nothing is pickled.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmbridge import __version__
from mmbridge.bridge import Bridge
from mmbridge.device import pick
from mmbridge.errors import BridgeError, RecipeError, UserError
from mmbridge.frozen import locate
from mmbridge.llm.weight_mask import put_on
from mmbridge.model_card import model_card
from mmbridge.recipe_file import parse
from mmbridge.sources import check, sources, with_dtype, with_mask

DTYPES = ("float32", "bfloat16", "float16")
FORMAT, VERSION = "mmbridge bridge", 1
RECIPE, CONFIG, METRICS, CARD = "recipe.yaml", "config.json", "metrics.json", "README.md"
MASK = "mask.safetensors"
_WEIGHTS = "bridge*.safetensors*"
_NEVER_OURS = "name a bridge folder, a run folder, a hub id or a transformers LLaVA folder"


def save(bridge: Bridge, folder: Path) -> None:
    """Writes the bridge to a new or empty folder, or in place of another bridge; whole or not at all.

    Raises:
        BridgeError: the folder holds something else.
    """
    with replaced(folder) as temporary:
        write(bridge, temporary)


def write(bridge: Bridge, folder: Path, own: Mapping[str, Tensor] | None = None) -> None:
    """Puts a bridge's files into an existing folder, one after the other; with ``own`` in place of its own tensors,
    where an engine has these."""
    own = bridge.own_tensors() if own is None else own
    tensors = {name: each.detach().cpu().contiguous() for name, each in own.items()}
    save_torch_state_dict(tensors, folder, filename_pattern="bridge{suffix}.safetensors")
    config = {
        "format": FORMAT,
        "version": VERSION,
        "mmbridge": __version__,
        "stage": bridge.stage,
        "template": bridge.template,
        "width": bridge.llm.width,
        "frozen": bridge.sources,
        "unfrozen": sorted(bridge.unfrozen),
    }
    if bridge.recipe.llm.mask is not None:
        shutil.copyfile(bridge.recipe.llm.mask, folder / MASK)
    (folder / RECIPE).write_text(bridge.recipe.dump(), encoding="utf-8")
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / METRICS).write_text(json.dumps(bridge.metrics, indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(model_card(bridge), encoding="utf-8")


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A new folder beside ``folder`` that takes its place at the end, or is dropped when something is raised.

    Raises:
        BridgeError: ``folder`` is neither new, nor empty, nor a bridge.
    """
    _refuse_foreign(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        (temporary / "new").mkdir()
        yield temporary / "new"
        if folder.exists():
            os.replace(folder, temporary / "old")
        try:
            os.replace(temporary / "new", folder)
        except BaseException:
            if (temporary / "old").exists():
                os.replace(temporary / "old", folder)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise BridgeError(folder, "expected a folder to save to, found a file")
    others = [each.name for each in sorted(folder.iterdir()) if not _is_ours(each)]
    if others or (any(folder.iterdir()) and _json(folder / CONFIG).get("format") != FORMAT):
        found = others[0] if others else "the files of something else"
        raise BridgeError(folder, f"expected an empty folder or a bridge to replace, found {found}", "name another one")


def _is_ours(path: Path) -> bool:
    return path.name in (RECIPE, CONFIG, METRICS, CARD, MASK) or path.match(_WEIGHTS)


def files(folder: Path) -> list[Path]:
    """The files of the bridge in a folder that may hold others."""
    return sorted(each for each in folder.iterdir() if _is_ours(each))


def load(place: str | Path, revision: str | None = None, device: str | None = None, dtype: str | None = None) -> Bridge:
    """See ``Bridge.from_pretrained``."""
    target = pick(device)
    if dtype not in (None, *DTYPES):
        raise UserError(f"dtype {dtype}", f"expected one of {', '.join(DTYPES)}")
    folder = find(place, revision)
    if "llava" in str(_json(folder / CONFIG).get("model_type", "")):
        from mmbridge.llava import load_llava

        return load_llava(place, revision, dtype).to(target)
    config = read_config(folder)
    recipe = parse((folder / RECIPE).read_text(encoding="utf-8"), str(folder / RECIPE))
    if recipe.llm.mask is not None:
        if not (folder / MASK).is_file():
            raise BridgeError(folder, f"expected {MASK}, found none", "the bridge is incomplete")
        recipe = with_mask(recipe, folder / MASK)
    check(sources(recipe), config["frozen"])
    bridge = Bridge(recipe if dtype is None else with_dtype(recipe, dtype), config["template"])
    fill(bridge, folder)
    bridge.stage = config["stage"]
    bridge.metrics = _json(folder / METRICS)
    return bridge.to(target)


def find(place: str | Path, revision: str | None = None) -> Path:
    """The folder meant by a path or hub id: a bridge, a run's last finished bridge, or a LLaVA folder.

    Raises:
        BridgeError: none of them.
    """
    if not str(place):
        raise BridgeError("''", "expected a bridge, found an empty name", _NEVER_OURS)
    path = Path(place).expanduser()
    try:
        file = path.is_file()
    except OSError as error:  # such as a name that is too long
        raise BridgeError(path, os.strerror(error.errno or 0).lower()) from None
    if file:
        raise BridgeError(path, "expected a bridge, found a file", _NEVER_OURS)
    try:
        folder = path if path.is_dir() else locate(str(place), revision)
    except RecipeError as error:
        fix = _NEVER_OURS if error.problem == "no such folder" else error.fix
        raise BridgeError(error.where, error.problem, fix) from error.__cause__
    if (folder / "stages").is_dir() and not (folder / CONFIG).exists():
        if not (folder / "bridge").is_dir():
            raise BridgeError(folder, "expected a run with a finished stage, found none", "train it with --resume")
        folder = folder / "bridge"
    if not (folder / CONFIG).exists():
        raise BridgeError(folder, f"expected a bridge, found no {CONFIG}", _NEVER_OURS)
    return folder


def _json(path: Path) -> dict[str, Any]:
    """A file's keys; none where it is not what it should be, which whoever looks for one will find."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a bridge of which no file is missing.

    Raises:
        BridgeError: it is no bridge, an incomplete one, or one of a newer version.
    """
    config = _json(folder / CONFIG)
    if config.get("format") != FORMAT:
        found = f"a model of type {config['model_type']}" if "model_type" in config else "something else"
        raise BridgeError(folder / CONFIG, f"expected a bridge, found {found}", _NEVER_OURS)
    if config.get("version") != VERSION:
        problem = f"expected a bridge of format {VERSION}, found {config.get('version')}"
        raise BridgeError(folder / CONFIG, problem, "upgrade mmbridge")
    for name in (RECIPE, METRICS):
        if not (folder / name).is_file():
            raise BridgeError(folder, f"expected {name}, found none", "the bridge is incomplete")
    for key in ("stage", "template", "frozen", "unfrozen"):
        if key not in config:
            raise BridgeError(folder / CONFIG, f"expected the key {key}, found none", "the bridge is incomplete")
    return config


def fill(bridge: Bridge, folder: Path) -> None:
    """Copies a folder's tensors into a bridge, each into its own number format.

    What the folder has not (adapters that only this bridge has, what only now is to train) stays as built. The bridge
    also learns which parameters of frozen parts are not as their sources have them.

    Raises:
        BridgeError: a tensor is missing, unexpected or of another shape.
    """
    config, found = read_config(folder), _tensors(folder)
    parameters = dict(bridge.named_parameters())
    if gone := sorted(set(config["unfrozen"]) - set(parameters)):
        raise BridgeError(folder, f"expected {gone[0]} among the parameters of the frozen parts, found no such name")
    own = bridge.own_tensors()
    expected = {name: each for name, each in own.items() if name.startswith("connectors.")}
    expected |= {name: parameters[name].detach() for name in config["unfrozen"]}
    _check(folder, expected, found)
    for name, tensor in found.items():
        expected[name].copy_(tensor)
    if config["unfrozen"]:
        put_on(bridge.llm)  # what was trained without the mask may have been all of a weight
    bridge.unfrozen |= set(config["unfrozen"])


def _tensors(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.glob("bridge*.safetensors"))
    if not files:
        raise BridgeError(folder, "expected bridge.safetensors, found none", "the bridge is incomplete")
    found: dict[str, Tensor] = {}
    for file in files:
        try:
            found |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise BridgeError(file, f"expected tensors, found a damaged file ({error})") from error
    return found


def _check(folder: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    missing, unexpected = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unexpected:
        parts = [f"{word} {_few(names)}" for word, names in (("missing", missing), ("unexpected", unexpected)) if names]
        raise BridgeError(folder, f"expected the tensors of its recipe, found {' and '.join(parts)}")
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            shapes = [tuple(each.shape) for each in (expected[name], tensor)]
            raise BridgeError(folder, f"{name}: expected shape {shapes[0]}, found {shapes[1]}")


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
