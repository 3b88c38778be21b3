"""An ONNX file as a function of tinygrad, with fixed shapes and an LSTM.

tinygrad's own reader does the work; no `onnx` package is needed. What is added here: shapes
that a model leaves open are given by the caller, weights are realized before the capture, and
the one operator that speech models want and tinygrad lacks."""

import dataclasses

import numpy as np
from plan_calls import DTYPES, CaptureError
from tinygrad import Tensor
from tinygrad.nn.onnx import OnnxRunner


def lstm(x, w, r, b=None, sequence_lens=None, initial_h=None, initial_c=None, p=None, *, hidden_size,
         direction="forward", layout=0, input_forget=0, **other):
    """ONNX's LSTM, forwards, with its usual activations; the gates lie as input, output,
    forget, cell. The steps are unrolled, since a plan has no loops."""
    if direction != "forward" or layout or input_forget or other or sequence_lens is not None or p is not None:
        raise CaptureError("an LSTM that runs backwards, or with peepholes, lengths, clipping or activations of its "
                           "own: only the plain one is known here")
    steps, batch = x.shape[:2]
    bias = 0 if b is None else b[0, :4 * hidden_size] + b[0, 4 * hidden_size:]
    h = Tensor.zeros(batch, hidden_size, dtype=x.dtype) if initial_h is None else initial_h[0]
    c = Tensor.zeros(batch, hidden_size, dtype=x.dtype) if initial_c is None else initial_c[0]
    hidden = []
    for step in range(steps):
        i, o, f, g = (x[step] @ w[0].T + h @ r[0].T + bias).chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        hidden.append(h)
    return Tensor.stack(*hidden).unsqueeze(1), h.unsqueeze(0), c.unsqueeze(0)


class Model:
    """An ONNX model that is called with its inputs by name, and returns its outputs by name."""

    def __init__(self, path, shapes, files):
        """`shapes` is {input: "1,3,48"}, `files` {input: a .npy file}, which has a shape too."""
        try:
            self.runner = OnnxRunner(path).to("CPU")
        except FileNotFoundError:
            raise
        except Exception as error:
            raise CaptureError(f"reading {path}: tinygrad's ONNX reader stopped at {error!r}: is it a whole ONNX "
                               "model? Where it is, change the model with the `onnx` package") from error
        self.path, self.specs = path, self.runner.graph_inputs
        self.runner.onnx_ops = {"LSTM": lstm} | self.runner.onnx_ops
        if unknown := (shapes.keys() | files.keys()) - self.specs.keys():
            raise CaptureError(f"{path} has no input {sorted(unknown)}: its inputs are {sorted(self.specs)}")
        if missing := sorted({n.op for n in self.runner.graph_nodes} - self.runner.onnx_ops.keys()):
            raise CaptureError(f"{path} has operators that tinygrad lacks: {', '.join(missing)}: export it without")
        self.given = {name: self.load(name, file) for name, file in files.items()}
        for name, spec in self.specs.items():
            self.specs[name] = dataclasses.replace(spec, shape=self.shape(name, shapes.get(name)))
        Tensor.realize(*self.tensors().values())

    def load(self, name, file):
        """An array for an input, of the input's type."""
        try:
            value = np.load(file, allow_pickle=False)
        except ValueError as error:
            raise CaptureError(f"reading {file} for input {name!r}: {error}") from error
        if value.dtype != np.dtype(DTYPES[self.specs[name].dtype][3]):
            raise CaptureError(f"{file} holds {value.dtype}, and {name!r} is {self.specs[name].dtype}: convert it")
        return value

    def shape(self, name, text):
        """The fixed shape of an input: that of --shape or of a file, else what the model says."""
        said = self.specs[name].shape
        if text is not None:
            try:
                fixed = tuple(int(n) for n in text.split(","))
            except ValueError:
                raise CaptureError(f"the shape {text!r} of input {name!r} is not N,N,..") from None
        else:
            fixed = self.given[name].shape if name in self.given else said
        open_ends = [n for n in fixed if not isinstance(n, int) or n < 0]
        if open_ends or len(fixed) != len(said) or any(isinstance(n, int) and 0 <= n != m for n, m in zip(said, fixed)):
            example = ",".join(str(n) if isinstance(n, int) and n >= 0 else "1" for n in said)
            found = f"which {fixed} does not fit" if fixed != said else "of which a plan must know all"
            raise CaptureError(f"{self.path}: input {name!r} has the shape {said}, {found}: give it, as in "
                               f"--shape {name}={example}")
        if name in self.given and self.given[name].shape != fixed:
            raise CaptureError(f"input {name!r} is given as {self.given[name].shape}, and its shape is {fixed}")
        return fixed

    def tensors(self):
        """The weights by name, those in Constant nodes too: they are realized before a capture."""
        constants = {n.outputs[0]: v for n in self.runner.graph_nodes for v in n.opts.values() if isinstance(v, Tensor)}
        weights = {k: v for k, v in self.runner.graph_values.items() if isinstance(v, Tensor)}
        return {k: v for k, v in (constants | weights).items() if v.numel()}

    def tests(self, count, rng):
        """Inputs of `count` runs: those given, and made up ones, of which integers are small as
        they may be indices."""
        def made_up(spec):
            kind = np.dtype(DTYPES[spec.dtype][3])
            if kind.kind == "f":
                return rng.standard_normal(spec.shape).astype(kind)
            return rng.integers(0, 2 if kind.kind == "b" else 100, spec.shape).astype(kind)
        fresh = [{name: made_up(spec) for name, spec in self.specs.items()} for _ in range(count)]
        return [values | self.given for values in fresh]

    def __call__(self, /, **inputs):
        try:
            return self.runner(inputs)
        except (NotImplementedError, RuntimeError, AssertionError) as error:
            raise CaptureError(f"running {self.path} with tinygrad: {error}") from error
