"""Interrupted and shared work: killed processes, torn files, full disks, other jobs, several processes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from card_scripts import in_two_processes
from torch.distributions import Independent, Normal
from torch_models import LinearGaussian

from boundcheck.errors import BadInput
from boundcheck.evidence.engine import WeightRun, run
from boundcheck.evidence.journal import Journal, pack, unpack
from boundcheck.evidence.shards import Shard, group

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
LINEAR = LinearGaussian(2, 3, seed=5)
X = np.linspace(-1, 1, 120).reshape(40, 3)
OPTIONS: dict = {"ks": (1, 7, 5000), "seed": 3}  # 40 items


def numbers(result: WeightRun) -> list[np.ndarray]:
    parts = (result.iwae, result.iwae_errors, result.log_mean_weight, result.effective_sample_sizes, result.tail)
    return [np.asarray(part) for part in parts]


def equal(a: WeightRun, b: WeightRun) -> None:
    for one, other in zip(numbers(a), numbers(b), strict=True):
        np.testing.assert_array_equal(one, other)
    assert a.failed == b.failed


# --- killed and resumed ---

KILLED = """
import os, signal, sys, time
import numpy as np, torch
sys.path.insert(0, {tests!r})
from torch_models import LinearGaussian
from boundcheck.evidence.engine import run
from boundcheck.models.torch_model import TorchModel

directory, slow = sys.argv[1], True
model = LinearGaussian(2, 3, seed=5).torch()
plain = model._functions["likelihood"]

def decoder(z):
    if slow:
        time.sleep(0.02)
    return plain(z)

model._functions["likelihood"] = decoder
x = np.linspace(-1, 1, 120).reshape(40, 3)
options = dict(ks=(1, 7, 5000), seed=3, threads=2, resume=directory)
count = lambda: len([f for f in os.listdir(directory) if f.startswith("item-") and not f.endswith(".tmp")])
torch.set_num_threads(1)
seen = [0]
for attempt in range(4):
    child = os.fork()
    if child == 0:
        run(model, x, **options)
        os._exit(0)
    # Kill at an odd moment after some more items, wherever the child is by then.
    while os.waitpid(child, os.WNOHANG) == (0, 0) and (not os.path.isdir(directory) or count() < seen[-1] + 2):
        time.sleep(0.0007)
    time.sleep(0.0011 * attempt)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    seen.append(count())
slow = False
result = run(model, x, **options)
np.savez(directory + ".npz", iwae=result.iwae, errors=result.iwae_errors, tail=result.tail,
         log_mean=result.log_mean_weight, sizes=result.effective_sample_sizes, seen=seen)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_job_that_was_killed_four_times_gives_what_the_uninterrupted_one_gives(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    subprocess.run(
        [sys.executable, "-c", KILLED.format(tests=str(TESTS)), str(directory)], cwd=ROOT, check=True, timeout=120
    )
    with np.load(f"{directory}.npz") as found:
        whole = run(LINEAR.torch(), X, **OPTIONS, threads=1)
        for name, array in zip(("iwae", "errors", "log_mean", "sizes", "tail"), numbers(whole), strict=True):
            np.testing.assert_array_equal(found[name], array)
        seen = found["seen"].tolist()
    assert seen == sorted(seen)
    assert 0 < seen[1] < seen[-1] < 40  # it really was interrupted, and went on from where it was
    assert not list(directory.glob("*.tmp"))


def test_what_is_saved_is_not_computed_again(tmp_path: Path) -> None:
    calls = [0]
    model = LINEAR.torch()
    plain = model._functions["likelihood"]

    def decoder(z: torch.Tensor) -> object:
        calls[0] += 1
        return plain(z)

    model._functions["likelihood"] = decoder
    first = run(model, X, **OPTIONS, resume=tmp_path / "j", fused="off")
    total = calls[0]
    again = run(model, X, **OPTIONS, resume=tmp_path / "j", fused="off")
    assert calls[0] - total <= 6  # the look at the model itself
    equal(first, again)
    files = sorted((tmp_path / "j").glob("item-*"))
    files[5].unlink()
    whole = files[7].read_bytes()
    files[7].write_bytes(whole[:-9])
    files[8].write_bytes(b"")
    files[9].write_bytes(files[10].read_bytes())  # a whole file, but of another item
    files[11].write_bytes(whole[:40] + b"\0" + whole[41:])
    equal(first, run(model, X, **OPTIONS, resume=tmp_path / "j", fused="off"))
    assert files[7].read_bytes() == whole


def test_the_chunk_of_the_beginning_is_kept(tmp_path: Path) -> None:
    run(LINEAR.torch(), X, **OPTIONS, resume=tmp_path, chunk=77)
    assert json.loads((tmp_path / "job.json").read_text())["settings"]["chunk"] == 77
    assert run(LINEAR.torch(), X, **OPTIONS, resume=tmp_path).settings["chunk"] == 77


# --- whose directory it is ---


def module(scale: float = 1.0) -> torch.nn.Module:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = torch.nn.Parameter(torch.full((2,), scale, dtype=torch.float64))

        def prior(self) -> object:
            return Independent(Normal(torch.zeros(2).double(), 1.0), 1)

        def encoder(self, x: torch.Tensor) -> object:
            return Independent(Normal(x[:, :2] * 0.5, 0.7), 1)

        def decoder(self, z: torch.Tensor) -> object:
            return Independent(Normal(torch.cat([z, z], -1) + self.shift[0], 1.0), 1)

    return Model()


Y = np.linspace(-1, 1, 20).reshape(5, 4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 4}, "its seed is 3, not 4"),
        ({"ks": (1, 7, 301)}, r"its k is 5000, not 301; its ks is \[1, 7, 5000\], not \[1, 7, 301\]"),
        ({"x": Y + 1}, "its data is"),
        ({"x": Y[:4]}, "its data is .*; its examples is 5, not 4"),
        ({"model": module(2.0)}, "its weights is"),
    ],
)
def test_the_directory_of_another_job_is_refused_by_what_differs(changed: dict, message: str, tmp_path: Path) -> None:
    arguments = {"model": module(), "x": Y, **OPTIONS, "resume": tmp_path}
    run(**arguments)
    with pytest.raises(BadInput, match=f"resume = .*expected the directory of this very job; {message}") as caught:
        run(**(arguments | changed))
    assert "\n" not in str(caught.value)
    run(**arguments)


def test_other_functions_without_a_module_are_told_by_what_they_compute(tmp_path: Path) -> None:
    run(LINEAR.torch(), X, **OPTIONS, resume=tmp_path)
    with pytest.raises(BadInput, match="other log-weights at the same draws"):
        run(LinearGaussian(2, 3, seed=6).torch(), X, **OPTIONS, resume=tmp_path)


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(BadInput, match=r"resume = .*it holds thesis.tex and no job.json"):
        run(LINEAR.torch(), X, **OPTIONS, resume=tmp_path)
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(BadInput, match=r"its job.json cannot be read"):
        run(LINEAR.torch(), X, **OPTIONS, resume=tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="resume = "):
        run(LINEAR.torch(), X, **OPTIONS, resume=tmp_path / "file")


# --- a full disk ---


def test_a_full_disk_is_one_clear_error_and_the_rest_can_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(LINEAR.torch(), X, **OPTIONS)
    real, calls = os.fsync, [0]

    def full(handle: int) -> None:
        calls[0] += 1
        if calls[0] > 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match=r"resume = .*the disk is full; \d+ of \d+ items are saved: make room.*again"):
        run(LINEAR.torch(), X, **OPTIONS, resume=tmp_path)
    monkeypatch.setattr(os, "fsync", real)
    assert 0 < len(list(tmp_path.glob("item-*"))) < 40
    assert not list(tmp_path.glob("*.tmp"))
    equal(whole, run(LINEAR.torch(), X, **OPTIONS, resume=tmp_path))


def test_a_disk_that_is_full_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(BadInput, match="the disk is full; 0 of 7 items are saved"):
        Journal(tmp_path / "new", {}, np.zeros(1), {}, 7)


def test_states_travel_without_pickling() -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        pack({"a": np.array([{}], dtype=object)})
    content = {"a": np.array(["x", "yy"]), "b/c": np.array(3), "empty": np.zeros((0, 2))}
    for name, array in unpack(pack(content)).items():
        np.testing.assert_array_equal(array, content[name])


# --- several processes ---

SHARED = """
import json, sys
import numpy as np, torch
sys.path.insert(0, {tests!r})
from torch_models import LinearGaussian
from torch.distributions import Normal
from boundcheck.errors import BadInput
from boundcheck.evidence.engine import run
from boundcheck.evidence.shards import rank
from boundcheck.models.torch_model import TorchModel

x = np.linspace(-1, 1, 120).reshape(40, 3)
result = run(LinearGaussian(2, 3, seed=5).torch(), x, ks=(1, 7, 5000), seed=3, threads=1, resume=sys.argv[1] + "/j")
alone = run(LinearGaussian(2, 3, seed=5).torch(), x, ks=(1, 7, 5000), seed=3, threads=1, distributed=False)
broken = TorchModel(prior=lambda: Normal(0.0, 1.0), encoder=lambda x: Normal(x, 1.0),
                    decoder=lambda z: Normal(torch.where(z > 3 - rank(), torch.nan, z), 1.0))
partly = run(broken, torch.tensor([0.0, 9.0, 1.0]), (1, 3), distributed=None)
message = ""
directory = sys.argv[1] + ("/other" if rank() else "/j")
try:
    run(LinearGaussian(2, 3, seed=5).torch(), x, ks=(1, 7), seed=3, resume=directory)
except BadInput as error:
    message = str(error)
np.savez(sys.argv[1] + f"/{{rank()}}.npz", iwae=result.iwae, errors=result.iwae_errors, tail=result.tail,
         log_mean=result.log_mean_weight, sizes=result.effective_sample_sizes, alone=alone.iwae, message=message,
         failed=np.array(sorted(partly.failed)))
"""


def test_two_processes_of_torchrun_give_what_one_gives(tmp_path: Path) -> None:
    in_two_processes(SHARED, tmp_path)
    whole = run(LINEAR.torch(), X, **OPTIONS, threads=1)
    for rank in (0, 1):
        with np.load(tmp_path / f"{rank}.npz") as found:
            for name, array in zip(("iwae", "errors", "log_mean", "sizes", "tail"), numbers(whole), strict=True):
                np.testing.assert_array_equal(found[name], array)
            np.testing.assert_array_equal(found["alone"], whole.iwae)
            assert 1 in found["failed"].tolist()
            # Only one of them met the mistake; both say it.
            assert "this very job" in str(found["message"])
    assert len(list((tmp_path / "j").glob("item-*"))) == len(list((tmp_path / "j").glob("item-????????")))


def test_several_processes_are_not_there_unless_started() -> None:
    shard = group(torch.device("cpu"))
    assert (shard.rank, shard.size) == (0, 1)
    assert shard.gather(b"x") == [b"x"]
    with pytest.raises(BadInput, match="distributed = True: expected processes started by torchrun"):
        run(LINEAR.torch(), X, **OPTIONS, distributed=True)
    assert [Shard(r, 3).share(list(range(7))) for r in range(3)] == [[0, 3, 6], [1, 4], [2, 5]]
