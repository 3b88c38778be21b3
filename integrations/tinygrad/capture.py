"""Writes what tinygrad compiled for the CPU as a plan bundle, which runs without tinygrad.

As a library, with any function that could be jitted; import it before tinygrad:

    from capture import capture
    capture(step, {"x": x, "position": position.bind(3)}, "model.svod")

As a command, with an ONNX file:

    python capture.py MODEL.onnx -o MODEL.svod --shape image=1,3,48,192

tinygrad's jit keeps the calls of one execution as a list of programs over buffers, which is
what a plan is. Here that list is read, and each buffer given a role: what the caller hands in is an input,
what is only read a constant, what outlives a run a state, and the rest scratch. The recorded
tests are runs of the same list by tinygrad itself. See README.md.
"""

import argparse
import functools
import hashlib
import importlib.metadata
import inspect
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

TINYGRAD = "0.14.0"  # what is read here are internals, so another version is another script


def clang():
    """The newest clang in PATH, which is also the one that the runtime picks by itself.

    The recorded outputs come from it, so that they are reproduced bit for bit. CC, where it is
    set, is tinygrad's own setting; it must be a clang, since the sources are clang's dialect."""
    if cc := os.environ.get("CC"):
        if "clang" not in Path(cc).name:
            raise ImportError(f"tinygrad's kernels are for clang, and CC is {cc!r}: unset CC, or name a clang")
        return cc
    found = [(n, f"clang-{n}") for n in range(99, 9, -1) if shutil.which(f"clang-{n}")][:1]
    if shutil.which("clang"):
        version = subprocess.run(["clang", "-dumpversion"], capture_output=True, text=True, check=False).stdout
        found.append((int(version.split(".")[0] or 0), "clang"))
    if not found:
        raise ImportError("no clang in PATH, neither `clang` nor `clang-N`: install one, or name it in CC")
    return max(found)[1]


def settle():
    """Sets what tinygrad reads from the environment, once, when it is imported.

    The planner is off so that each buffer is one buffer and not a part of an arena, batching
    is off so that each call is one program, and the cache of compiled kernels is off since it
    may hold code of another compiler. Grids are cut for eight threads, not for this machine's."""
    wanted = {"DEV": "CPU:CLANG", "CC": clang(), "NO_MEMORY_PLANNER": "1", "JIT": "2", "HCQ2": "0", "CCACHE": "0"}
    if os.environ.get("DEV", "").upper().startswith("CPU:CLANG"):
        wanted["DEV"] = os.environ["DEV"]  # one that names an architecture
    wanted["NUM_CPU_THREADS"] = os.environ.get("NUM_CPU_THREADS", "8")
    if "tinygrad" in sys.modules and any(os.environ.get(k) != v for k, v in wanted.items()):
        needed = " ".join(f"{k}={v}" for k, v in wanted.items())
        raise ImportError(f"tinygrad was imported before capture: import capture first, or set {needed}")
    os.environ.update(wanted)
    installed = {d.version for d in importlib.metadata.distributions(name="tinygrad")}
    if installed != {TINYGRAD}:
        raise ImportError(f"capture reads the internals of tinygrad {TINYGRAD}, and installed is "
                          f"{', '.join(installed) or 'none'}: pip install --no-deps -r requirements.txt")


settle()

import numpy as np  # noqa: E402
from plan_calls import DTYPES, CaptureError, Plan, array, described, memory, realized  # noqa: E402
from plan_files import check_target, replacing, unique, write_plan, write_test, write_weights  # noqa: E402
from plan_onnx import Model  # noqa: E402
from tinygrad import Tensor, TinyJit, dtypes  # noqa: E402
from tinygrad.engine.jit import JitError, _prepare_jit_inputs, _TinyJit  # noqa: E402
from tinygrad.uop.ops import Ops, UOp  # noqa: E402


# ---- arguments ---------------------------------------------------------------------------


class Arguments:
    """The arguments of the function that is captured, by name, with contents that can change.

    tinygrad takes the tensors among them as inputs, also those one level down in a list, tuple
    or dict, and bound variables as variables. Each tensor is copied once: an input must be a
    whole buffer of its own, and further tests are written into the same memory."""

    def __init__(self, function, args):
        signature = inspect.signature(function)
        bound = signature.bind(**args) if isinstance(args, dict) else signature.bind(*args)
        names = [p.name for p in signature.parameters.values() if p.kind is not p.KEYWORD_ONLY][:len(bound.args)]
        names[len(names):] = [f"arg{i}" for i in range(len(names), len(bound.args))]
        self.tensors, self.variables, self.first = {}, {}, {}
        self.positional = len(bound.args)
        given = dict(zip(names, bound.args)) | bound.kwargs
        self.values = {name: self.take(name, value) for name, value in given.items()}

    def take(self, name, value, nested=False):
        """Notes an argument, and returns what the function is given in its place."""
        if isinstance(value, (Tensor, np.ndarray)):
            tensor = Tensor(value, device="CPU") if isinstance(value, np.ndarray) else value.to("CPU")
            described(tensor.dtype, f"input {name!r}")
            if not all(isinstance(n, int) for n in tensor.shape):
                raise CaptureError(f"the shape of input {name!r} is {tensor.shape}: pass a tensor of a fixed shape, "
                                   "and take the part that a variable says in the function")
            self.tensors[name] = tensor = tensor.clone().realize()
            self.first[name] = array(tensor.uop.base.buffer, tensor.dtype, tensor.shape)
            return tensor
        if isinstance(value, UOp):
            if nested or not value.is_bound_var:
                raise CaptureError(f"argument {name!r} is no bound variable: pass Variable(..).bind(N) by itself")
            variable, number = value.unbind()
            self.variables[variable.expr], self.first[variable.expr] = (name, variable), number
        elif isinstance(value, (list, tuple)) and not nested:
            return type(value)([self.take(f"{name}.{i}", v, True) for i, v in enumerate(value)])
        elif isinstance(value, dict) and not nested:
            return {k: self.take(f"{name}.{k}", v, True) for k, v in value.items()}
        return value

    def split(self):
        """The arguments as a call has them."""
        values = list(self.values.values())
        return tuple(values[:self.positional]), dict(list(self.values.items())[self.positional:])

    def set(self, given):
        """Puts the values of a test in place; what it does not give is as it was at first."""
        if unknown := given.keys() - self.first.keys():
            raise CaptureError(f"a test gives {sorted(unknown)}, and the arguments are {sorted(self.first)}")
        values = self.first | given
        for name, tensor in self.tensors.items():
            kind, value = np.dtype(DTYPES[tensor.dtype][3]), values[name]
            value = values[name] = value if isinstance(value, np.ndarray) else np.asarray(value, kind)
            if value.shape != tensor.shape or value.dtype != kind:
                raise CaptureError(f"a test gives {name!r} as {value.dtype} {value.shape}, where the capture has "
                                   f"{tensor.dtype} {tensor.shape}: give an array of that form")
            memory(tensor.uop.base.buffer)[:] = value.tobytes()
        for name, (argument, variable) in self.variables.items():
            if not variable.vmin <= values[name] <= variable.vmax:
                raise CaptureError(f"a test gives {name!r} as {values[name]}, outside {variable.vmin}..{variable.vmax}")
            self.values[argument] = variable.bind(int(values[name]))
        return values

    def invented(self, number, rng):
        """The values of test `number`: the given ones first, then random ones that look alike.

        Random integers stay between the least and the greatest given one, as they may be
        indices. A variable counts up, as a position does, and then takes its bounds."""
        if number == 0:
            return {}
        values = {}
        for name, tensor in self.tensors.items():
            first = self.first[name]
            if first.dtype.kind == "f":
                values[name] = rng.normal(first.mean(), first.std() or 1, first.shape).astype(first.dtype)
            elif first.size and first.dtype.kind in "iub":
                values[name] = rng.integers(first.min(), first.max(), first.shape, first.dtype, endpoint=True)
        for name, (_, v) in self.variables.items():
            steps = [self.first[name], min(self.first[name] + 1, v.vmax), v.vmin, v.vmax]
            values[name] = steps[number] if number < len(steps) else int(rng.integers(v.vmin, v.vmax, endpoint=True))
        return values


# ---- the bundle --------------------------------------------------------------------------


def name_outputs(returned, names):
    """What the function returned, by name: those given, or a dict's own, or out, out.0 ..."""
    if isinstance(returned, dict):
        pairs = dict(returned)
    elif isinstance(returned, (list, tuple)):
        names = names or [f"out.{i}" for i in range(len(returned))]
        pairs = dict(zip(names, returned)) if len(set(names)) == len(returned) else None
    else:
        pairs = dict(zip(names or ["out"], [returned]))
    if not pairs or not all(isinstance(t, Tensor) for t in pairs.values()):
        raise CaptureError(f"naming the outputs: the function returns {type(returned).__name__}, the names are "
                           f"{names}: return a tensor, a list or a dict of tensors, and name each once")
    return pairs


def output_view(name, tensor):
    """Where the values of an output lie: a part of a buffer, in the order of its shape."""
    described(tensor.dtype, f"output {name!r}")
    if not all(isinstance(n, int) for n in tensor.shape):
        raise CaptureError(f"output {name!r} has a shape that depends on a variable: return it padded to a fixed shape")
    if not tensor.uop.is_realized or tensor.uop.contiguous_view() is None:
        raise CaptureError(f"output {name!r}, of shape {tensor.shape}, is a view that is not laid out as its shape "
                           "says: return it contiguous()")
    return tensor.uop.buffer


def find_roles(plan, arguments, outputs, lasting):
    """The role of each buffer. A state is what is read before it is written, and written; and
    what was there before the capture and is written, since a cache may be written in part."""
    inputs = {t.uop.base.buffer: name for name, t in arguments.tensors.items()}
    results, roles = {view.base for view in outputs.values()}, {}
    for base, name in inputs.items():
        if base not in plan.buffers:
            warnings.warn(f"input {name!r} is used by no kernel: what it was in the capture is baked in", stacklevel=3)
    for view in list(inputs) + list(outputs.values()):
        plan.buffers.setdefault(view.base, len(plan.buffers))
    for base in plan.buffers:
        if base in inputs:
            if base in plan.written or base in plan.retyped:
                raise CaptureError(f"input {inputs[base]!r} is written by the function, or read as another type: a "
                                   "plan does not: let the function hold it as a tensor of its own, or clone() it")
            roles[base] = "input"
        elif base in plan.written:
            lasts = base in plan.read_first or base in lasting
            roles[base] = "state" if lasts else "output" if base in results else "temp"
        elif base in results:
            name = next(n for n, view in outputs.items() if view.base is base)
            raise CaptureError(f"output {name!r} is not computed by the jitted calls, it is the same in each run: "
                               "do not return it")
        else:
            roles[base] = "constant"
        if roles[base] in ("constant", "state") and not base.is_allocated():
            raise CaptureError(f"a {base.dtype} buffer of {base.size} elements is read and was never written: "
                               "realize the weights before the capture")
    return roles


def restore(states, before):
    """Puts the states back as they were before the runs of the capture, all or none: weights
    from before and moments from after would be no state that ever was."""
    if late := [base for base in states if base not in before]:
        warnings.warn(f"{len(late)} of {len(states)} states were made by the function's first run, so the bundle "
                      "begins after its second: realize them before the capture, with Tensor.realize(..)", stacklevel=3)
        return
    for base in states:
        memory(base)[:] = before[base]


def describe_buffers(plan, roles, arguments, tensors):
    """The buffers as plan.json has them, and the weights: {name: (dtype, bytes)}."""
    known = {t.uop.base.buffer.base: name for name, t in tensors.items() if t.uop.base.op is Ops.BUFFER}
    inputs = {t.uop.base.buffer: (name, t.shape) for name, t in arguments.tensors.items()}
    taken, described_buffers, weights = {name for name, _ in inputs.values()}, [], {}
    for index, base in enumerate(plan.buffers):
        role, shape = roles[base], [base.size]
        name, _, tensor_type, _ = described(base.dtype, f"a {role} of {base.size} elements")
        buffer = {"role": role} | ({"bytes": base.nbytes} if base in plan.retyped else {"dtype": name, "shape": shape})
        if role == "input":
            buffer["name"], buffer["shape"] = inputs[base][0], list(inputs[base][1])
        if role in ("constant", "state"):
            buffer["name"] = buffer["tensor"] = unique(known.get(base, f"{role}_{index}"), taken)
            weights[buffer["tensor"]] = ("U8" if base in plan.retyped else tensor_type, bytes(memory(base)))
        described_buffers.append(buffer)
    return described_buffers, weights


def record_tests(folder, run, plan, arguments, results, views, tests):
    """Runs the tests one after another, and writes what went in and what came out."""
    half = any(base.dtype in (dtypes.float16, dtypes.bfloat16) for base in plan.buffers)
    tolerance = {"rtol": 1e-2, "atol": 1e-3} if half else {"rtol": 1e-4, "atol": 1e-5}
    recorded = []
    for number, given in enumerate(tests):
        values = arguments.set(given)
        run()
        inputs = write_test(folder, number, {name: values[name] for name in arguments.tensors})
        found = {name: array(views[name], t.dtype, t.shape) for name, t in results.items()}
        recorded.append({"variables": {name: int(values[name]) for name in plan.variables}, "inputs": inputs,
                         "outputs": write_test(folder, number, found)} | tolerance)
    return recorded


def write_kernels(folder, kernels):
    """A file for each source, named after its entry and its digest, and the list for plan.json."""
    (folder / "kernels").mkdir()
    listed = []
    for kernel in map(json.loads, kernels):
        digest = hashlib.sha256(kernel["source"].encode()).hexdigest()[:8]
        file = f"kernels/{kernel['entry'][:100]}_{digest}.c"
        (folder / file).write_text(kernel["source"], encoding="utf-8")
        listed.append(kernel | {"source": file})
    return listed


def capture(jit, args, path, *, name=None, outputs=None, tests=None, tensors=None, seed=0):
    """Writes the bundle `path` of a function, jitted already or not, and returns its plan.json.

    `args`, a dict or a list, are its arguments: tensors and arrays become inputs, bound
    variables variables, anything else is baked in. `outputs` names what it returns. `tests` is
    a list of {name: array or number}, in which what is left out is as in `args`; or how many
    to make up, from `seed`: 1, or 4 where there are states or variables. `tensors`, {name:
    Tensor} as of get_state_dict, names constants and states.

    The function runs twice to be captured, on `args`. States are as before when the tests
    begin, and again in the end."""
    check_target(path)
    prefix = ()
    if isinstance(jit, functools.partial) and isinstance(getattr(jit.func, "__self__", None), _TinyJit):
        jit, prefix = jit.func.__self__, jit.args  # a method that is jitted
    function, prune = (jit.fxn, jit.prune) if isinstance(jit, _TinyJit) else (jit, False)
    if function is None:
        raise CaptureError("the jit was loaded and has no function: capture it where it is made")
    function = functools.partial(function, *prefix) if prefix else function
    arguments, mine = Arguments(function, args), TinyJit(function, prune=prune)

    def run():
        positional, keywords = arguments.split()
        try:
            return mine(*positional, **keywords)
        except JitError as error:
            raise CaptureError(f"tinygrad's jit refuses the function: {error}") from error

    before = {base: bytes(memory(base)) for base in realized()}
    run()
    lasting = realized()
    returned = run()
    positional, keywords = arguments.split()
    plan = Plan(mine.captured.linear.src, tuple(_prepare_jit_inputs(positional, keywords)[0]))
    results = name_outputs(returned, outputs)
    views = {result: output_view(result, tensor) for result, tensor in results.items()}
    roles = find_roles(plan, arguments, views, lasting)
    states = [base for base, role in roles.items() if role == "state"]
    restore(states, before)
    start = {base: bytes(memory(base)) for base in states}
    if tests is None or isinstance(tests, int):
        rng, count = np.random.default_rng(seed), tests or (4 if states or plan.variables else 1)
        tests = [arguments.invented(number, rng) for number in range(count)]
    indices = {base: index for index, base in enumerate(plan.buffers)}
    try:
        with replacing(path) as folder:
            listed, weights = describe_buffers(plan, roles, arguments, tensors or {})
            written = {
                "format": "svod-plan", "version": 1,
                "name": name or Path(path).stem, "producer": f"tinygrad {TINYGRAD}",
                "variables": plan.variables, "kernels": write_kernels(folder, plan.kernels), "buffers": listed,
                "ops": plan.ops,
                "outputs": [{"name": result, "buffer": indices[views[result].base], "offset": views[result].offset,
                             "dtype": DTYPES[tensor.dtype][0], "shape": list(tensor.shape)}
                            for result, tensor in results.items()],
                "tests": record_tests(folder, run, plan, arguments, results, views, tests),
            }
            write_weights(folder / "weights.safetensors", weights)
            write_plan(folder / "plan.json", written)
    finally:
        for base, contents in start.items():
            memory(base)[:] = contents
    return written


# ---- the command -------------------------------------------------------------------------


def pair(text):
    """NAME=VALUE, split."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def parse(arguments):
    parser = argparse.ArgumentParser(description="Captures an ONNX model as a plan bundle, with recorded tests.")
    parser.add_argument("model", help="the ONNX file")
    parser.add_argument("-o", "--output", required=True, help="the bundle's folder, by convention NAME.svod")
    parser.add_argument("--shape", metavar="NAME=N,N,..", type=pair, action="append", default=[],
                        help="the shape of an input, where the model leaves it open")
    parser.add_argument("--input", metavar="NAME=FILE.npy", type=pair, action="append", default=[],
                        help="what an input is in the tests; without it, numbers are made up")
    parser.add_argument("--tests", metavar="N", type=int,
                        help="how many tests to record (2, or 1 if all inputs are given)")
    parser.add_argument("--seed", type=int, default=0, help="of the numbers that are made up")
    parser.add_argument("--name", help="the name in the plan")
    options = parser.parse_args(arguments)
    if options.tests is not None and options.tests < 1:
        parser.error("--tests is at least 1")
    return options


def main(arguments=None):
    """Captures an ONNX model; 1 if it could not be, with the reason on standard error."""
    options = parse(arguments)
    try:
        check_target(options.output)
        model = Model(options.model, dict(options.shape), dict(options.input))
        count = options.tests or (1 if len(model.given) == len(model.specs) else 2)
        tests = model.tests(count, np.random.default_rng(options.seed))
        print(f"{options.model}: compiling and running it", file=sys.stderr)
        plan = capture(model, tests[0], options.output, name=options.name, tests=tests, tensors=model.tensors())
    except (CaptureError, OSError) as error:
        print(f"capture.py: {error}", file=sys.stderr)
        return 1
    print(f"{options.output}: {len(plan['ops'])} launches of {len(plan['kernels'])} kernels, {count} tests")
    return 0


if __name__ == "__main__":
    sys.exit(main())
