"""A user's model, weights and data, from files.

Nothing here unpickles: weights come from safetensors or through torch's weights-only loader, data from numpy without
objects. Only the model file, which the user names, is run.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, BoundcheckError, UnknownName, require

if TYPE_CHECKING:
    import torch

_SPEC = "FILE.py:NAME"
_STATE_FILES = "a .safetensors, .pt, .pth or .ckpt file"


def load_factory(spec: str, argument: str = "the model") -> Any:
    """The object NAME of a Python file, given as "FILE.py:NAME". The file is run.

    Args:
        spec: the file and the name.
        argument: what it is to be, for the message.

    Raises:
        BadInput: no such file, no ":NAME", a file that fails, or one without that name.

    >>> load_factory("my_vae.py")
    Traceback (most recent call last):
    ...
    boundcheck.errors.BadInput: the model = 'my_vae.py': expected FILE.py:NAME; name the function that makes the model
    """
    path_text, colon, name = str(spec).rpartition(":")
    if not colon or not name.isidentifier() or not path_text:
        remedy = "name the function that makes the model" if argument == "the model" else "name the object in the file"
        raise BadInput(argument, str(spec), _SPEC, remedy)
    path = Path(path_text)
    if not path.is_file():
        raise BadInput(argument, str(spec), _SPEC, f"there is no file {path}")
    module = _run(path, argument)
    if not hasattr(module, name):
        raise UnknownName(f"name in {path.name}", name, _own_names(module) or vars(module))
    return getattr(module, name)


def _own_names(module: ModuleType) -> list[str]:
    """What a file defines, without what it imports."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def _run(path: Path, argument: str) -> ModuleType:
    if path.suffix != ".py":
        raise BadInput(argument, str(path), _SPEC, "the file's name must end in .py")
    label = f"boundcheck_user_{path.stem}"
    module = ModuleType(label)
    module.__file__ = str(path)
    before = sys.modules.get(label)
    sys.modules[label] = module  # dataclasses in the file look themselves up there
    sys.path.insert(0, str(path.resolve().parent))  # as if the file were run: it may import its neighbours
    try:
        # Compiled from the source itself: a cached bytecode file is only as new as the clock's last second, and the
        # verdict on an older formula would be a wrong one.
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except BaseException as error:
        sys.modules.pop(label)
        if before is not None:
            sys.modules[label] = before
        if not isinstance(error, Exception | SystemExit) or isinstance(error, BoundcheckError):
            raise
        remedy = f"running it raised {type(error).__name__}: {_first_line(error)}{_place_in(path, error)}"
        raise BadInput(f"{argument}'s file", str(path), "a Python file that runs", remedy) from error
    finally:
        sys.path.pop(0)
    return module


def _place_in(path: Path, error: BaseException) -> str:
    """The line of a file at which an error arose, as the end of a sentence."""
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == str(path)]
    return f" (line {lines[-1]})" if lines else ""


def make_model(factory: Any, spec: str) -> Any:
    """What a factory makes; an object that already is a model is taken as it is.

    Raises:
        BadInput: a factory that cannot be called without arguments, or fails.
    """
    if hasattr(factory, "prior") and not isinstance(factory, type):
        return factory
    if not callable(factory):
        raise BadInput("the model", spec, "a function without arguments that makes the model, or the model itself")
    expected = "a function that makes the model when called without arguments"
    try:
        made = factory()
    except BoundcheckError:
        raise
    except Exception as error:
        remedy = f"calling it raised {type(error).__name__}: {_first_line(error)}"
        raise BadInput("the model", spec, expected, remedy) from error
    if made is None or isinstance(made, type):
        what = "returned None" if made is None else f"returned the class {made.__name__}: call it, {made.__name__}()"
        raise BadInput("the model", spec, expected, what)
    return made


# --- weights -------------------------------------------------------------------------------------------------------


def load_weights(model: Any, path: str | Path) -> None:
    """Load a state dict from a .safetensors, .pt, .pth or .ckpt file into a module, all keys and shapes equal.

    A checkpoint that has the state dict as its "state_dict" or "model_state_dict" will do, and so do names that all
    begin with the same word more than the model's, as DataParallel ("module.") and Lightning ("model.") write them.

    Args:
        model: a module, or a `TorchModel` that has one.
        path: the file.

    Raises:
        BadInput: no such file, an unknown format, a pickle with code in it, weights of another architecture (naming
            the first key that does not fit) or of another kind of numbers, or weights that are not finite.
    """
    torch = require("torch", extra="torch", feature="loading weights")
    module = module_of(model)
    if module is None:
        raise BadInput(
            "the model",
            type(model).__name__,
            "a torch.nn.Module, since there are weights to load",
            "or set the attribute `module` of a TorchModel to the one that its functions use",
        )
    own = module.state_dict()
    state = _without_prefix(_read_state(path), own)
    for key, tensor in own.items():
        if key not in state:
            _other_architecture(path, own, state, f"the model's {key} is missing from the file")
        if tuple(state[key].shape) != tuple(tensor.shape):
            shapes = f"{tuple(state[key].shape)} in the file, {tuple(tensor.shape)} in the model"
            _other_architecture(path, own, state, f"{key} has the shape {shapes}")
    for key, tensor in state.items():
        if key not in own:
            _other_architecture(path, own, state, f"the model has no {key}")
        kinds = tuple(str(each.dtype).removeprefix("torch.") for each in (tensor, own[key]))
        if tensor.is_floating_point() != own[key].is_floating_point():
            _other_architecture(path, own, state, f"{key} is {kinds[0]} in the file, {kinds[1]} in the model")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BadInput("the weights", str(path), "finite numbers", f"{key} has NaN or infinite entries")
    module.load_state_dict(dict(state))


def _other_architecture(path: str | Path, own: Mapping, state: Mapping, first: str) -> None:
    different = len(own.keys() ^ state.keys()) + sum(
        tuple(state[key].shape) != tuple(own[key].shape) for key in own.keys() & state.keys()
    )
    more = f" (and {different - 1} more)" if different > 1 else ""
    raise BadInput("the weights", str(path), "weights of this very model", f"{first}{more}")


def module_of(model: Any) -> torch.nn.Module | None:
    """The module that has a model's parameters: the model itself, or that of a `TorchModel`."""
    torch = require("torch", extra="torch", feature="loading weights")
    module = model if isinstance(model, torch.nn.Module) else getattr(model, "module", None)
    return module if isinstance(module, torch.nn.Module) else None


def _without_prefix(state: dict[str, torch.Tensor], own: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The state dict, without a first word of all names if the model's names are the rest."""
    words = {key.partition(".")[0] for key in state}
    if len(words) != 1 or state.keys() == own.keys():
        return state
    short = {key.partition(".")[2]: tensor for key, tensor in state.items()}
    return short if short.keys() == own.keys() else state


def _read_state(given: str | Path) -> dict[str, torch.Tensor]:
    path = Path(given)
    if not path.is_file():
        raise BadInput("the weights", str(given), _STATE_FILES, "there is no such file")
    remedy = "save them with safetensors.torch.save_file(model.state_dict(), ...)"
    try:
        if path.suffix == ".safetensors":
            state = require("safetensors.torch", extra="torch", feature="loading weights").load_file(path)
        elif path.suffix in (".pt", ".pth", ".ckpt"):
            torch = require("torch", extra="torch", feature="loading weights")
            with warnings.catch_warnings():  # about files that are then refused
                warnings.simplefilter("ignore")
                state = torch.load(path, map_location="cpu", weights_only=True)
        else:
            raise BadInput("the weights", str(path), _STATE_FILES, remedy)
    except BoundcheckError:
        raise
    except Exception as error:
        what = "a file of tensors alone, not a pickle with code" if path.suffix != ".safetensors" else "a whole file"
        raise BadInput("the weights", str(path), what, f"{type(error).__name__}; {remedy}") from error
    for name in ("state_dict", "model_state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    if not isinstance(state, Mapping) or not all(hasattr(tensor, "shape") for tensor in state.values()):
        raise BadInput("the weights", str(path), "a state dict: tensors by name", remedy)
    return {str(key): tensor for key, tensor in state.items()}


# --- data ----------------------------------------------------------------------------------------------------------


def load_data(path: str | Path, key: str | None = None) -> NDArray[Any]:
    """Observations of shape (examples, *event) from a .npy file, or from one array of an .npz file.

    Args:
        path: the file; "digits.npz:test" names an array in it.
        key: the array, if the path does not name it; an .npz file with a single array needs neither.

    Raises:
        BadInput: no such file, another format, no such array, or an array that is empty, not of numbers, or not finite.
    """
    file, named = _split_key(str(path))
    key = key if key is not None else named
    if not file.is_file():
        raise BadInput("the data", str(path), "a .npz or .npy file", f"there is no file {file}")
    if file.suffix not in (".npz", ".npy"):
        raise BadInput("the data", str(path), "a .npz or .npy file", "save them with numpy.savez")
    try:
        with file.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            array = _array_of(loaded, key, "the data", file)
    except BoundcheckError:
        raise
    except Exception as error:
        raise BadInput("the data", str(path), "a whole file of plain arrays", _why_unread(error)) from error
    return _checked(array, str(path))


def mapped_array(path: str | Path, what: str) -> NDArray[Any]:
    """An array of an .npy file, or "FILE.npz:NAME"; an .npy file is mapped and read where it is used.

    Raises:
        BadInput: no such file or array, another format, or objects in it.
    """
    file, key = _split_key(str(path))
    if not file.is_file():
        raise BadInput(what, str(path), "an .npy file, or FILE.npz:NAME", f"there is no file {file}")
    if file.suffix not in (".npz", ".npy"):
        raise BadInput(what, str(path), "an .npy file, or FILE.npz:NAME", "save them with numpy.save")
    try:
        loaded = np.load(file, mmap_mode="r", allow_pickle=False)
        return _array_of(loaded, key, what, file)
    except BoundcheckError:
        raise
    except Exception as error:
        expected = "a whole .npy file, or FILE.npz:NAME, of plain numbers"
        raise BadInput(what, str(path), expected, _why_unread(error)) from error


def _split_key(path: str) -> tuple[Path, str | None]:
    file, colon, key = path.rpartition(":")
    if colon and file.endswith((".npz", ".npy")):
        return Path(file), key
    return Path(path), None


def _why_unread(error: Exception) -> str:
    """Numpy advises to allow pickles, which is not to be had, and takes any text for one."""
    told = _first_line(error)
    if "pickle" in told or "Python objects" in told:
        return "it holds Python objects, or is no file of numpy's: save an array of numbers with numpy.save"
    return f"{type(error).__name__}: {told}"


def _array_of(loaded: Any, key: str | None, what: str, file: Path) -> NDArray[Any]:
    if isinstance(loaded, np.ndarray):
        if key is not None:
            raise BadInput(what, f"{file}:{key}", "an .npy file without a name", "it holds a single array")
        return loaded
    names = list(loaded.files)
    if key is None and len(names) == 1:
        key = names[0]
    if key is None:
        has = f"the file has: {', '.join(names[:10])}" if names else "there is no array in the file"
        raise BadInput(what, str(file), "the name of one array, as in FILE.npz:NAME", has)
    if key not in names:
        raise UnknownName(f"array in {file}", key, names)
    return loaded[key]


def _checked(array: NDArray[Any], path: str) -> NDArray[Any]:
    if array.dtype.kind not in "biuf":
        raise BadInput("the data", path, "an array of numbers", f"its type is {array.dtype}")
    if array.ndim == 0 or array.size == 0:
        raise BadInput("the data", path, "at least one example", f"the array has the shape {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise BadInput("the data", path, "finite numbers", f"the entry {list(where)} is {array[where]}")
    return array


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else "no message"
