"""Writes the files of a plan bundle: plan.json, kernels, weights and recorded tests.

Knows nothing of tinygrad. Every array is what NumPy has; `bf16` is two opaque bytes, "V2"."""

import contextlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np


def unique(name, taken):
    """`name`, or with a number behind it, such that nothing in `taken` is called so; notes it."""
    candidate, n = name, 2
    while candidate in taken:
        candidate, n = f"{name}_{n}", n + 1
    taken.add(candidate)
    return candidate


def file_name(name, suffix, taken):
    """A name of a file for anything that has a name, which may hold slashes or be long."""
    return unique(re.sub(r"[^\w.-]", "_", name)[:100].lstrip(".") or "_", taken) + suffix


def write_plan(path, plan):
    """plan.json with one line for each kernel, buffer, op, output and test: it is read by people."""
    lines = []
    for key, value in plan.items():
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join("  " + json.dumps(v) for v in value) + "\n ]"
        else:
            text = json.dumps(value)
        lines.append(f" {json.dumps(key)}: {text}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def write_weights(path, tensors):
    """A safetensors file of {name: (dtype, bytes)}, laid out to be mapped.

    Data begins at a multiple of 64, and tensors whose size is one come first, so that each
    of them does too; the rest follow in such an order that each is aligned for its elements."""
    order = sorted(tensors, key=lambda name: -min(64, (n := len(tensors[name][1])) & -n or 64))
    header, at = {}, 0
    for name in order:
        dtype, data = tensors[name]
        size = {"BOOL": 1, "BF16": 2}.get(dtype) or int(dtype[1:]) // 8
        header[name] = {"dtype": dtype, "shape": [len(data) // size], "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(tensors[name][1])


def write_test(folder, number, arrays):
    """Writes {name: array} into tests/N, and returns {name: path}. The same folder may be
    written twice, for the inputs and for the outputs: no file is overwritten."""
    place = folder / "tests" / str(number)
    place.mkdir(parents=True, exist_ok=True)
    taken, paths = {p.stem for p in place.iterdir()}, {}
    for name, value in arrays.items():
        file = file_name(name, ".npy", taken)
        np.save(place / file, value, allow_pickle=False)
        paths[name] = f"tests/{number}/{file}"
    return paths


def check_target(path):
    """The folder that `path` leads to, if a bundle may be written there. Only a bundle or an
    empty folder is ever replaced: a name that was mistyped must not cost anyone a folder."""
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileExistsError(f"writing {path}: there is no folder {target.parent}: make it first")
    if target.exists() and not (target.is_dir() and ((target / "plan.json").is_file() or not any(target.iterdir()))):
        raise FileExistsError(f"writing {path}: it is there, and is no bundle: remove it, or choose another name")
    return target


@contextlib.contextmanager
def replacing(path):
    """A folder to write into, which takes the place of `path` only when all went well.

    It lies beside its target, so that moving it there is a rename. An older bundle is moved
    aside before and removed after; what fails leaves it, or puts it back."""
    target = check_target(path)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    old = folder.with_name(folder.name + ".old")
    try:
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)
        yield folder
        if target.exists():
            target.rename(old)
        try:
            folder.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
