"""What capture.py promises, from a function of tinygrad to a run by `svod`.

    python -m unittest -v

The command is found in PATH, or named in SVOD. A test whose packages are not there is skipped
and says so."""

import contextlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import tempfile
import unittest
import warnings
from pathlib import Path

from capture import CaptureError, capture, main  # first: it sets how tinygrad works

import numpy as np
from plan_calls import Plan, read_kernel
from tinygrad import Tensor, TinyJit, Variable, dtypes, nn
from tinygrad.helpers import Context
from tinygrad.uop.ops import Ops, UOp

SVOD = os.environ.get("SVOD") or shutil.which("svod")
RNG = np.random.default_rng(0)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def shipped(package, *path):
    """A file that a package ships. The package is not imported: what it needs is not here."""
    found = importlib.util.find_spec(package)
    if found is None:
        raise unittest.SkipTest(f"the package {package} is not installed: pip install --no-deps -r requirements.txt")
    return str(Path(found.submodule_search_locations[0], *path))


class Captured(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="capture-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.bundle = self.folder / "it.svod"

    def svod(self, *arguments):
        if SVOD is None:
            self.skipTest("no `svod` in PATH, and SVOD names none: cargo build --release -p svod-cli")
        done = subprocess.run([SVOD, "run", self.bundle, *arguments], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def assert_runs(self, tests):
        """The runtime gives the bits that were recorded, whatever lay in its memory before, and
        no kernel leaves its buffers."""
        self.assertIn(f"{tests} of {tests}", self.svod("--exact"))
        self.svod("--exact", "--guard", "--fill")

    def plan(self):
        return json.loads((self.bundle / "plan.json").read_text())

    def roles(self):
        return [b["role"] for b in self.plan()["buffers"]]

    def recorded(self, test, output):
        return np.load(self.bundle / self.plan()["tests"][test]["outputs"][output])


class Functions(Captured):
    def test_a_function_of_inputs_and_weights(self):
        weight = Tensor(floats(64, 32)).realize()
        x = floats(4, 64)
        capture(lambda x: (x @ weight).relu(), {"x": x}, self.bundle, outputs=["y"], tensors={"dense.weight": weight})
        constants = [b["name"] for b in self.plan()["buffers"] if b["role"] == "constant"]
        self.assertEqual(constants, ["dense.weight"])
        np.testing.assert_allclose(self.recorded(0, "y"), np.maximum(x @ weight.numpy(), 0), rtol=1e-4, atol=1e-4)
        self.assert_runs(1)

    def test_the_runtime_computes_new_inputs_too(self):
        weight = Tensor(floats(64, 32)).realize()
        capture(lambda x: x @ weight, [floats(4, 64)], self.bundle, outputs=["y"])
        x = floats(4, 64)
        np.save(self.folder / "x.npy", x)
        self.svod("--input", f"x={self.folder / 'x.npy'}", "--output", self.folder / "results")
        np.testing.assert_allclose(np.load(self.folder / "results" / "y.npy"), x @ weight.numpy(), rtol=1e-4, atol=1e-4)

    def test_a_variable_and_a_cache_that_is_written_a_row_at_a_time(self):
        cache = Tensor.zeros(16, 8).contiguous().realize()
        position = Variable("position", 1, 14)

        @TinyJit
        def attend(x, at):
            cache[at:at + 1].assign(x).realize()
            return cache[:at + 1].sum(axis=0)

        capture(attend, {"x": floats(1, 8), "at": position.bind(3)}, self.bundle)
        plan = self.plan()
        self.assertEqual(plan["variables"], {"position": {"min": 1, "max": 14}})
        self.assertEqual([t["variables"]["position"] for t in plan["tests"]], [3, 4, 1, 14])
        self.assertEqual(self.roles().count("state"), 1)
        rows = [np.load(self.bundle / t["inputs"]["x"])[0] for t in plan["tests"]]
        np.testing.assert_allclose(self.recorded(3, "out"), np.sum(rows, axis=0), rtol=1e-4, atol=1e-5)
        self.assertTrue((cache.numpy() == 0).all(), "the capture leaves the cache as it was")
        self.assert_runs(4)

    def test_a_training_step_begins_where_its_weights_were(self):
        layers = [nn.Linear(32, 16), nn.Linear(16, 10)]
        optimizer = nn.optim.Adam(nn.state.get_parameters(layers), lr=0.01)
        Tensor.realize(*nn.state.get_parameters(optimizer))

        @TinyJit
        def step(x, y):
            with Context(TRAINING=1):
                optimizer.zero_grad()
                loss = layers[1](layers[0](x).relu()).sparse_categorical_crossentropy(y).backward()
                return loss.realize(*optimizer.schedule_step())

        labels = RNG.integers(0, 10, 8).astype(np.int32)
        weight = layers[0].weight.numpy()
        x = floats(8, 32)
        capture(step, {"x": x, "y": labels}, self.bundle, outputs=["loss"], tests=[{}] * 6,
                tensors=nn.state.get_state_dict(optimizer))
        states = {b["name"] for b in self.plan()["buffers"] if b["role"] == "state"}
        self.assertEqual(len(states), 14)  # four weights with two moments each, and two powers
        self.assertIn("m.0", states)
        losses = [float(self.recorded(test, "loss")) for test in range(6)]
        hidden = np.maximum(x @ weight.T + layers[0].bias.numpy(), 0)
        logits = hidden @ layers[1].weight.numpy().T + layers[1].bias.numpy()
        first = np.mean(np.log(np.exp(logits).sum(1)) - logits[range(8), labels])
        np.testing.assert_allclose(losses[0], first, rtol=1e-4)
        self.assertEqual(losses, sorted(losses, reverse=True))
        np.testing.assert_array_equal(layers[0].weight.numpy(), weight)
        self.assert_runs(6)

    def test_states_that_the_first_run_makes_are_named_in_a_warning(self):
        held = {}

        def count(x):
            held.setdefault("total", Tensor.zeros(4).contiguous())
            held["total"].assign(held["total"] + x)
            return held["total"]

        with self.assertWarnsRegex(UserWarning, "realize them before the capture"):
            capture(count, [floats(4)], self.bundle)
        self.assert_runs(4)

    def test_half_precision_integers_booleans_and_scalars(self):
        weight = Tensor(floats(32, 32)).cast(dtypes.float16).realize()
        scale = Tensor(np.array(0.5, np.float32)).realize()
        brain = Tensor(floats(32)).cast(dtypes.bfloat16).realize()

        def mixed(x, ids, keep):
            y = x.cast(dtypes.float16) @ weight
            return {"half": y, "brain": (y[0] * brain).cast(dtypes.bfloat16), "ids": ids * 2,
                    "kept": keep.where(x.sum(axis=1), 0) * scale, "flags": ~keep, "sum": x.sum()}

        arguments = {"x": floats(4, 32), "ids": np.arange(5), "keep": np.array([True, False, True, True])}
        given = {"x": floats(4, 32), "ids": [4, 3, 2, 1, 0], "keep": [False] * 4}
        capture(mixed, arguments, self.bundle, tests=[{}, given])
        np.testing.assert_array_equal(self.recorded(1, "ids"), [8, 6, 4, 2, 0])
        self.assertTrue(self.recorded(1, "flags").all())
        dtype_of = {o["name"]: o["dtype"] for o in self.plan()["outputs"]}
        self.assertEqual(dtype_of, {"half": "f16", "brain": "bf16", "ids": "i64", "kept": "f32", "flags": "bool",
                                    "sum": "f32"})
        self.assert_runs(2)

    def test_arguments_in_lists_methods_and_results_that_are_given_back(self):
        class Model:
            weight = Tensor(floats(8, 8)).realize()

            @TinyJit
            def __call__(self, pair, scale):
                return [pair[0] @ self.weight * scale, pair[1] + 1]

        capture(Model().__call__, [[Tensor(floats(2, 8)), Tensor(floats(3))], 2.0], self.bundle, outputs=["y", "z"])
        self.assertEqual(sorted(self.plan()["tests"][0]["inputs"]), ["pair.0", "pair.1"])
        self.assert_runs(1)

    def test_a_state_that_is_read_and_written_in_part_and_as_another_type(self):
        held = Tensor(np.arange(32, dtype=np.float32)).realize()

        def shift(x):
            held[5:9].assign(x).realize()
            return held[4:12], held[1:] + 1, held[:8].bitcast(dtypes.int32) + 1

        x = floats(4)
        capture(shift, [x], self.bundle)
        self.assertEqual(self.roles().count("state"), 1)
        np.testing.assert_array_equal(self.recorded(0, "out.0"), [4, *x, 9, 10, 11])
        self.assert_runs(4)

    def test_an_input_that_nothing_reads_is_named_in_a_warning(self):
        with self.assertWarnsRegex(UserWarning, "input 'y' is used by no kernel"):
            capture(lambda x, y: x + 1, [floats(3), floats(3)], self.bundle)
        self.assert_runs(1)

    def test_kernels_of_one_name_with_different_sources_stand_side_by_side(self):
        def two(x):
            return (x + 1).contiguous(), (x * 3).contiguous(), (x + 1).contiguous().realize() - 2

        capture(two, [floats(8, 4)], self.bundle)
        kernels = self.plan()["kernels"]
        self.assertLess(len({k["entry"] for k in kernels}), len(kernels))
        self.assertEqual(len({k["source"] for k in kernels}), len(kernels))
        self.assert_runs(1)

    def test_large_kernels_have_a_grid(self):
        weight = Tensor(floats(512, 512)).realize()
        capture(lambda x: x @ weight, [floats(64, 512)], self.bundle)
        self.assertEqual(max(op.get("grid", 1) for op in self.plan()["ops"]), 8)
        self.assert_runs(1)

    def test_the_same_capture_twice_is_the_same_to_the_byte(self):
        weight, x = Tensor(floats(16, 16)).realize(), floats(2, 16)
        contents = []
        for _ in range(2):
            capture(lambda x: x @ weight, [x], self.bundle, tests=3)
            files = sorted(p for p in self.bundle.rglob("*") if p.is_file())
            contents.append([(str(p), p.read_bytes()) for p in files])
        self.assertEqual(*contents)


class Refusals(Captured):
    def refuse(self, pattern, function, args, **options):
        with self.assertRaisesRegex(CaptureError, pattern):
            capture(function, args, self.bundle, **options)
        self.assertEqual(list(self.folder.iterdir()), [], "nothing is left of a capture that failed")

    def test_a_copy_from_python_at_each_run(self):
        self.refuse("COPY from PYTHON", lambda x: (x + Tensor([1.0, 2.0, 3.0])).contiguous(), [floats(3)])

    def test_an_input_that_is_written(self):
        self.refuse("input 'x' is written", lambda x: x.assign(x + 1), [floats(3)])

    def test_a_result_that_no_call_computes(self):
        weight = Tensor(floats(3)).realize()
        self.refuse("output 'out.1' is not computed", lambda x: (x + 1, weight), [floats(3)])

    def test_a_result_that_is_laid_out_otherwise(self):
        self.refuse("contiguous", lambda x: (x + 1).contiguous().realize().T, [floats(3, 4)])

    def test_a_result_whose_shape_is_a_variable(self):
        bound = Variable("n", 1, 3).bind(2)
        self.refuse("depends on a variable", lambda x, n: x[:n] * 2, [floats(3, 4), bound])

    def test_a_function_that_computes_nothing(self):
        self.refuse("jit refuses", lambda x: x, [floats(3)])

    def test_a_kernel_whose_source_has_an_unknown_parameter(self):
        program = self.a_call().src[0]
        source = next(s for s in program.src if s.op is Ops.SOURCE)
        for wrong, pattern in [(") {", ", const int data9_) {"), ("float* restrict data0", "double* restrict data0"),
                               ("float* restrict data0", "float* data0"), ("data0_", "data7_")]:
            changed = source.replace(arg=source.arg.replace(wrong, pattern, 1))
            altered = program.replace(src=tuple(changed if s is source else s for s in program.src))
            with self.subTest(pattern=pattern), self.assertRaisesRegex(CaptureError, "call 7, kernel E_"):
                read_kernel(altered, "call 7")

    def test_a_graph_of_calls(self):
        call = self.a_call()
        graph = UOp.custom_function("graph", UOp(Ops.LINEAR, src=(call,))).call(call.src[1])
        with self.assertRaisesRegex(CaptureError, "call 0 of 1 is a CUSTOM_FUNCTION `graph`"):
            Plan([graph], ())

    def a_call(self):
        """A call as tinygrad captures it."""
        jit = TinyJit(lambda x: x + 1)
        for _ in range(2):
            jit(Tensor(floats(16)).realize())
        return jit.captured.linear.src[0]

    def test_an_unbound_variable(self):
        self.refuse("no bound variable", lambda x, n: x + n, [floats(3), Variable("n", 1, 3)])

    def test_a_test_of_another_shape_or_name_or_outside_of_the_bounds(self):
        def add(x, n):
            return x + n

        args = {"x": floats(3), "n": Variable("n", 1, 3).bind(2)}
        self.refuse(r"'x' as float32 \(4,\)", add, args, tests=[{"x": floats(4)}])
        self.refuse("'z'", add, args, tests=[{"z": floats(3)}])
        self.refuse(r"'n' as 4, outside 1\.\.3", add, args, tests=[{"n": 4}])

    def test_a_folder_that_is_no_bundle_is_left_alone(self):
        self.bundle.mkdir()
        (self.bundle / "thesis.txt").write_text("years")
        with self.assertRaisesRegex(FileExistsError, "no bundle"):
            capture(lambda x: x + 1, [floats(3)], self.bundle)
        self.assertEqual((self.bundle / "thesis.txt").read_text(), "years")

    def test_a_failed_capture_leaves_the_bundle_that_was_there(self):
        capture(lambda x: x + 1, [floats(3)], self.bundle)
        before = (self.bundle / "plan.json").read_text()
        with self.assertRaises(CaptureError):
            capture(lambda x: x + 2, [floats(3)], self.bundle, tests=[{}, {"x": floats(4)}])
        self.assertEqual((self.bundle / "plan.json").read_text(), before)
        self.assertEqual([p.name for p in self.folder.iterdir()], [self.bundle.name])


class Onnx(Captured):
    def command(self, *arguments):
        """What the command answers, and what it says."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("error")
            code = main([*arguments, "-o", str(self.bundle)])
        return code, said.getvalue()

    def assert_like_onnxruntime(self, model, tolerance):
        if importlib.util.find_spec("onnxruntime") is None:
            self.skipTest("the package onnxruntime is not installed: pip install --no-deps -r requirements.txt")
        import onnxruntime
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        for test in self.plan()["tests"]:
            inputs = {name: np.load(self.bundle / file) for name, file in test["inputs"].items()}
            for name, wanted in zip(names, session.run(names, inputs), strict=True):
                error = np.abs(np.load(self.bundle / test["outputs"][name]) - wanted).max()
                print(f"{name}: {error:.1e} from onnxruntime", end=", ", flush=True)
                self.assertLess(error, tolerance)

    def test_magika(self):
        model = shipped("magika", "models", "standard_v3_3", "model.onnx")
        text = np.frombuffer(b"def twice(x):\n    return x + x\n\n", np.uint8)
        np.save(self.folder / "bytes.npy", np.resize(text, (1, 2048)).astype(np.int32))
        code, said = self.command(model, "--input", f"bytes={self.folder / 'bytes.npy'}")
        self.assertEqual(code, 0, said)
        self.assert_like_onnxruntime(model, 1e-6)
        self.assert_runs(1)

    def test_silero_which_has_an_lstm(self):
        model = shipped("silero_vad", "data", "silero_vad_openvino_16k.onnx")
        code, said = self.command(model, "--tests", "3")
        self.assertEqual(code, 0, said)
        self.assert_like_onnxruntime(model, 1e-5)
        self.assert_runs(3)

    def test_silero_over_a_sequence(self):
        model = shipped("silero_vad", "data", "silero_vad_16k_sequence.onnx")
        code, said = self.command(model, "--shape", "input=3,576")
        self.assertEqual(code, 0, said)
        self.assert_like_onnxruntime(model, 1e-5)
        self.assert_runs(2)

    def test_open_shapes_unknown_inputs_and_what_is_no_model(self):
        model = shipped("magika", "models", "standard_v3_3", "model.onnx")
        for arguments, expected in [
            ([model], "--shape bytes=1,2048"),
            ([model, "--shape", "bytes=1,7"], "does not fit"),
            ([model, "--shape", "bytes=one"], "is not N,N,.."),
            ([model, "--shape", "pixels=1"], "no input ['pixels']"),
            ([__file__], "is it a whole ONNX model?"),
            ([str(self.folder / "none.onnx")], "none.onnx"),
        ]:
            with self.subTest(arguments=arguments[1:]):
                code, said = self.command(*arguments)
                self.assertEqual(code, 1)
                self.assertIn(expected, said)
        self.assertEqual(list(self.folder.iterdir()), [])


if __name__ == "__main__":
    unittest.main()
