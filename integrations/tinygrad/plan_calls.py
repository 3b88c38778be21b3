"""Reads the calls that tinygrad's jit captured as the kernels, buffers and ops of a plan.

All that leans on tinygrad's internals stands here and in capture.py, which sets how tinygrad
works before it imports this."""

import json
import re

import numpy as np
from tinygrad import dtypes
from tinygrad.engine.realize import estimate_uop, resolve_params
from tinygrad.uop.ops import Ops, buffers

# tinygrad's dtype: its name in a plan, in C, in safetensors, and NumPy's type for its bytes.
DTYPES = {
    dtypes.bool: ("bool", "_Bool", "BOOL", "?"),
    dtypes.int8: ("i8", "signed char", "I8", "i1"), dtypes.uint8: ("u8", "unsigned char", "U8", "u1"),
    dtypes.int16: ("i16", "short", "I16", "<i2"), dtypes.uint16: ("u16", "unsigned short", "U16", "<u2"),
    dtypes.int32: ("i32", "int", "I32", "<i4"), dtypes.uint32: ("u32", "unsigned int", "U32", "<u4"),
    dtypes.int64: ("i64", "long", "I64", "<i8"), dtypes.uint64: ("u64", "unsigned long", "U64", "<u8"),
    dtypes.float16: ("f16", "__fp16", "F16", "<f2"), dtypes.bfloat16: ("bf16", "__bf16", "BF16", "V2"),
    dtypes.float32: ("f32", "float", "F32", "<f4"), dtypes.float64: ("f64", "double", "F64", "<f8"),
}


class CaptureError(Exception):
    """What could not be captured: what was being done, to what, and what to do about it."""


def described(dtype, where):
    """The names of a dtype, or an error that says where one stands that a plan has not."""
    if dtype not in DTYPES:
        raise CaptureError(f"{where} is of type {dtype}, which a plan does not have: cast it to another")
    return DTYPES[dtype]


def memory(buffer):
    """The bytes of a buffer in place: the CPU's memory is ours."""
    return buffer.ensure_allocated().as_memoryview(force_zero_copy=True).cast("B")


def realized():
    """Every buffer that has contents now. Views count as what they are views of."""
    bases = (b.base for b in list(buffers.values()) if hasattr(b, "base"))
    return {b for b in bases if b.device == "CPU" and b.is_allocated()}


def array(view, dtype, shape):
    """A copy of a buffer's contents as an array."""
    return np.frombuffer(bytes(memory(view)), DTYPES[dtype][3]).reshape(shape)


def read_param(uop, info, match, place):
    """One parameter, from what the program says of it and how its signature writes it."""
    name, c_name = described(uop.dtype, place)[:2]
    slot = uop.arg.slot
    reads, writes = slot in info.ins, slot in info.outs
    if match and match[2] == c_name and int(match[4]) == slot:
        if match[3] and slot in info.globals and (reads or writes):
            return {"buffer": name, "len": uop.max_numel(), "access": "r" * reads + "w" * writes}
        if match[1] and uop in info.vars and uop.expr == "core_id":
            return {"scalar": name, "index": True, "max": int(uop.vmax) + 1}
        if match[1] and uop in info.vars and not uop.expr.startswith("_"):
            return {"scalar": name, "name": uop.expr, "min": int(uop.vmin), "max": int(uop.vmax)}
    raise CaptureError(f"{place}: neither a buffer that is read or written, nor a variable, nor the grid's index")


def read_kernel(program, where):
    """A program as a kernel of a plan, without what a plan says of each launch, and its grid.

    What the program says of its parameters is held against the signature in its source; a
    kernel that differs anywhere is refused, since the runtime would call it wrongly."""
    info, entry = program.arg, program.arg.function_name
    source = next(s.arg for s in program.src if s.op is Ops.SOURCE)
    uops = {u.arg.slot: u for s in program.src[:2] for u in s.toposort() if u.op is Ops.PARAM}
    slots = [*info.globals, *(v.arg.slot for v in info.vars)]
    found = re.search(rf"\bvoid {re.escape(entry)}\(([^()]*)\) {{", source)
    signature = found[1].split(", ") if found else []
    if len(signature) != len(slots) or set(slots) != set(uops):
        raise CaptureError(f"{where}, kernel {entry}: {len(slots)} parameters are known, {len(uops)} are used, and "
                           f"its source has {len(signature)}:\n{source}")
    params = []
    for slot, text in zip(slots, signature):
        match = re.fullmatch(r"(const )?([\w ]+?)(\* restrict)? data(\d+)_\w*", text)
        params.append(read_param(uops[slot], info, match, f"{where}, kernel {entry}, parameter `{text}`"))
        if "buffer" in params[-1] and "aligned(" not in source:  # no vectors: elements are aligned, no more
            params[-1]["align"] = uops[slot].dtype.itemsize
    grid = next((p["max"] for p in params if "index" in p), 1)
    if tuple(info.global_size) != (grid, 1, 1) or any(n != 1 for n in info.local_size or ()):
        raise CaptureError(f"{where}, kernel {entry}: a grid of {info.global_size} by {info.local_size}, and a plan "
                           "has one index: capture with tinygrad's own choice of grids")
    return {"entry": entry, "source": source, "language": "c", "params": params}, grid


class Plan:
    """The calls of one execution as kernels, buffers and ops."""

    def __init__(self, calls, inputs):
        self.kernels, self.buffers, self.ops, self.variables = {}, {}, [], {}
        self.read_first, self.written, self.retyped = set(), set(), set()
        for number, call in enumerate(calls):
            self.add(call, inputs, f"call {number} of {len(calls)}")

    def view(self, view, align, where):
        """A buffer of a call as an argument: its base, or the part of it that is passed."""
        if getattr(view, "device", None) != "CPU":
            raise CaptureError(f"{where}: a buffer of {getattr(view, 'device', 'several devices')}: move it to the CPU")
        if view.offset % align:
            raise CaptureError(f"{where}: a view at byte {view.offset}, where the kernel assumes a multiple of "
                               f"{align}: make it contiguous() and realize it before")
        if view.dtype != view.base.dtype:
            self.retyped.add(view.base)
        index = self.buffers.setdefault(view.base, len(self.buffers))
        whole = view.nbytes == view.base.nbytes
        return index if whole else {"buffer": index, "offset": view.offset, "bytes": view.nbytes}

    def add(self, call, inputs, where):
        program = call.src[0]
        if program.op is Ops.COPY:
            raise CaptureError(f"{where} is a COPY from {call.src[2].device}: the function makes a tensor of numbers "
                               "of Python or NumPy, or reads a file, at each run: make it before, and realize it")
        if program.op is not Ops.PROGRAM:
            raise CaptureError(f"{where} is a {program.op.name} `{program.arg}`, and a plan has kernels alone: "
                               "capture on one CPU, with tinygrad's own settings")
        kernel, grid = read_kernel(program, where)
        # Entry names repeat with other sources, and a source may be used with other bounds.
        op = {"launch": self.kernels.setdefault(json.dumps(kernel), len(self.kernels)), "args": []}
        where, resolved = f"{where}, kernel {kernel['entry']}", resolve_params(call, inputs)
        views = [resolved[slot].buffer for slot in program.arg.globals]
        for view, param in zip(views, kernel["params"]):
            op["args"].append(self.view(view, param.get("align", 16), where))
            if "r" in param["access"] and view.base not in self.written:
                self.read_first.add(view.base)
        self.written |= {v.base for v, p in zip(views, kernel["params"]) if "w" in p["access"]}
        for param in (p for p in kernel["params"] if "name" in p):
            name, bounds = param["name"], {"min": param["min"], "max": param["max"]}
            op.setdefault("scalars", {})[name] = {"var": name}
            if self.variables.setdefault(name, bounds) != bounds:
                raise CaptureError(f"{where}: variable {name!r} is within {bounds} here, and within "
                                   f"{self.variables[name]} before: use one Variable")
        cost = estimate_uop(call)  # symbolic where there are variables: then its upper bound
        costs = {k: int(getattr(v, "vmax", v)) for k, v in {"flops": cost.ops, "bytes": cost.mem}.items()}
        self.ops.append(op | ({"grid": grid} if grid > 1 else {}) | costs)
