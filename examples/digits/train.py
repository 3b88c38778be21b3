"""Trains the digits classifier and writes the rest of the bundle beside its kernels.

    pip install scikit-learn numpy safetensors
    python train.py               # ten seconds: trains, writes the bundle, prints the accuracy
    python train.py --validate    # a minute: five-fold cross-validation in the training part

It writes into its own folder: plan.json, weights.safetensors, labels.txt, tests/0 .. tests/7.
The kernels, kernels/*.c, are written by hand; plan() says of them what the runtime must know.

Data: scikit-learn's digits, 1797 pictures of 8x8 pixels. A stratified fifth, 360 of them,
is held out; it becomes the eight tests of 45 pictures, and nothing here learns from it or
is chosen by it. The settings below come from --validate, which does not see it.

Accuracy: 356 of the 360 held-out pictures (98.89 %), and 99.03 % in the cross-validation,
which flatters a little: it is the best of nine settings.

The seed is fixed and numpy's BLAS keeps to one thread: a second run on the same machine
with the same packages writes the same bytes. Elsewhere the last bits of a sum may differ,
and with them the weights.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, train_test_split

HERE = Path(__file__).resolve().parent
SEED = 0
BATCH = 45  # images in one run of the plan; 360 = 8 * 45

# Channels last, everywhere. The order is that of the file: sizes that are multiples of 64
# bytes first, so that each of those starts at a multiple of 64.
SHAPES = {
    "conv1.weight": (3, 3, 1, 16),
    "conv1.bias": (16,),
    "conv2.weight": (3, 3, 16, 32),
    "conv2.bias": (32,),
    "dense.weight": (512, 10),
    "dense.bias": (10,),
}

EPOCHS, MINIBATCH, RATE, DECAY, DROPOUT = 40, 32, 4e-3, 1e-4, 0.5


# ---- the network ---------------------------------------------------------------------


def patches(maps):
    """[n, h, w, c] to [n, h, w, 9 * c]: the 3x3 surroundings of each position, zero outside."""
    n, h, w, c = maps.shape
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [padded[:, y : y + h, x : x + w] for y in range(3) for x in range(3)]
    return np.stack(taps, axis=3).reshape(n, h, w, 9 * c)


def unpatch(grad, c):
    """The transpose of patches: each patch's gradient goes back to where its values came from."""
    n, h, w, _ = grad.shape
    padded = np.zeros((n, h + 2, w + 2, c), grad.dtype)
    for tap in range(9):
        y, x = divmod(tap, 3)
        padded[:, y : y + h, x : x + w] += grad[..., tap * c : (tap + 1) * c]
    return padded[:, 1:-1, 1:-1]


def forward(p, images, mask=None):
    """Images [n, 8, 8] to scores [n, 10], and what backward needs of the way there."""
    n = len(images)
    cols1 = patches(images[..., None])
    maps = np.maximum(cols1 @ p["conv1.weight"].reshape(9, 16) + p["conv1.bias"], 0)
    cols2 = patches(maps)
    full = np.maximum(cols2 @ p["conv2.weight"].reshape(144, 32) + p["conv2.bias"], 0)
    squares = full.reshape(n, 4, 2, 4, 2, 32).transpose(0, 1, 3, 5, 2, 4).reshape(n, 512, 4)
    features = squares.max(axis=2)
    if mask is not None:
        features = features * mask
    logits = features @ p["dense.weight"] + p["dense.bias"]
    power = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = power / power.sum(axis=1, keepdims=True)
    return scores, (cols1, maps, cols2, squares, features)


def backward(p, scores, kept, labels, mask):
    """The gradient of the mean cross-entropy, by parameter."""
    cols1, maps, cols2, squares, features = kept
    n = len(labels)
    g_logits = (scores - np.eye(10, dtype=np.float32)[labels]) / n
    g_features = (g_logits @ p["dense.weight"].T) * mask
    # The gradient of a maximum goes to the place that held it, where ReLU let it through.
    first = np.arange(4) == squares.argmax(axis=2)[..., None]
    g_squares = g_features[..., None] * (first & (squares > 0))
    g_full = g_squares.reshape(n, 4, 4, 32, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(-1, 32)
    g_cols2 = g_full @ p["conv2.weight"].reshape(144, 32).T
    g_maps = (unpatch(g_cols2.reshape(n, 8, 8, 144), 16) * (maps > 0)).reshape(-1, 16)
    grads = {
        "conv1.weight": cols1.reshape(-1, 9).T @ g_maps,
        "conv1.bias": g_maps.sum(axis=0),
        "conv2.weight": cols2.reshape(-1, 144).T @ g_full,
        "conv2.bias": g_full.sum(axis=0),
        "dense.weight": features.T @ g_logits,
        "dense.bias": g_logits.sum(axis=0),
    }
    return {name: grad.reshape(SHAPES[name]) for name, grad in grads.items()}


def train(images, labels):
    """Adam with weight decay, dropout on the features, a rate that falls along a half cosine."""
    rng = np.random.default_rng(SEED)
    p = {}
    for name, shape in SHAPES.items():
        scale = np.sqrt(2 / np.prod(shape[:-1])) if name.endswith("weight") else 0
        p[name] = (rng.standard_normal(shape) * scale).astype(np.float32)
    mean, square = ({name: np.zeros_like(value) for name, value in p.items()} for _ in range(2))
    starts = range(0, len(images), MINIBATCH)
    steps, step = EPOCHS * len(starts), 0
    for _ in range(EPOCHS):
        order = rng.permutation(len(images))
        for start in starts:
            chosen = order[start : start + MINIBATCH]
            mask = (rng.random((len(chosen), 512)) >= DROPOUT) / np.float32(1 - DROPOUT)
            scores, kept = forward(p, images[chosen], mask)
            grads = backward(p, scores, kept, labels[chosen], mask)
            rate = np.float32(RATE * (1 + np.cos(np.pi * step / steps)) / 2)
            step += 1
            for name, grad in grads.items():
                mean[name] += (grad - mean[name]) * np.float32(0.1)
                square[name] += (grad**2 - square[name]) * np.float32(0.001)
                m, s = mean[name] / (1 - 0.9**step), square[name] / (1 - 0.999**step)
                p[name] -= rate * (m / (np.sqrt(s) + 1e-8) + DECAY * p[name])
    return p


def right(p, images, labels):
    """How many pictures get their highest score for the true digit."""
    return int((forward(p, images)[0].argmax(axis=1) == labels).sum())


# ---- the bundle ----------------------------------------------------------------------


def write_weights(path, p):
    """safetensors by hand: the length of a JSON header, the header, the tensors without gaps.
    Spaces pad the header, so that the tensors begin at a multiple of 64 of the file."""
    header, at = {}, 0
    for name, shape in SHAPES.items():
        size = p[name].nbytes
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    tensors = b"".join(p[name].astype("<f4").tobytes() for name in SHAPES)
    path.write_bytes(len(text).to_bytes(8, "little") + text + tensors)
    for name, value in load_file(path).items():  # safetensors' own reader agrees
        assert np.array_equal(value, p[name]), name


def plan():
    """The plan, as docs/bundle-format.md and the four kernels want it."""
    shapes = {"images": (BATCH, 8, 8), **SHAPES, "maps": (BATCH, 8, 8, 16),
              "pooled": (BATCH, 4, 4, 32), "logits": (BATCH, 10), "scores": (BATCH, 10)}
    roles = {"images": "input", "maps": "temp", "pooled": "temp", "logits": "temp",
             "scores": "output"}
    count = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    index = {name: i for i, name in enumerate(shapes)}
    buffers = [
        {"name": name, "role": roles.get(name, "constant"), "dtype": "f32", "shape": shape}
        | ({} if name in roles else {"tensor": name})
        for name, shape in shapes.items()
    ]
    layers = [  # kernel, what it writes, what it reads, floating-point operations per image
        ("conv1", "maps", ["images", "conv1.weight", "conv1.bias"], 2 * 64 * 9 * 16),
        ("conv2_pool", "pooled", ["maps", "conv2.weight", "conv2.bias"], 2 * 64 * 144 * 32),
        ("dense", "logits", ["pooled", "dense.weight", "dense.bias"], 2 * 512 * 10),
        ("softmax", "scores", ["logits"], 5 * 10),
    ]
    kernels, ops = [], []
    for number, (entry, written, read, flops) in enumerate(layers):
        params = [{"buffer": "f32", "len": count[written], "access": "w"}]
        params += [{"buffer": "f32", "len": count[name], "access": "r"} for name in read]
        params += [{"scalar": "i32", "index": True, "max": BATCH}]
        kernels.append({"entry": entry, "source": f"kernels/{entry}.c", "language": "c",
                        "params": params})
        args = [written, *read]
        ops.append({"launch": number, "args": [index[name] for name in args], "grid": BATCH,
                    "flops": BATCH * flops, "bytes": 4 * sum(count[name] for name in args)})
    output = {"name": "scores", "buffer": index["scores"], "offset": 0,
              "dtype": "f32", "shape": shapes["scores"]}
    tests = [
        {"variables": {}, "inputs": {"images": f"tests/{i}/images.npy"},
         "outputs": {"scores": f"tests/{i}/scores.npy"}, "rtol": 1e-4, "atol": 1e-5,
         "truth": f"tests/{i}/truth.npy"}
        for i in range(8)
    ]
    return {
        "format": "svod-plan", "version": 1, "name": "digits", "producer": "train.py",
        "classifier": {"images": "images", "scores": "scores"}, "variables": {},
        "kernels": kernels, "buffers": buffers, "ops": ops, "outputs": [output], "tests": tests,
    }


def write_plan(path):
    """JSON with a line for each kernel, buffer, operation, output and test."""
    def text(value):
        if isinstance(value, list):
            return "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        return json.dumps(value)

    lines = [f' "{key}": {text(value)}' for key, value in plan().items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main():
    data = load_digits()
    images, labels = (data.images / 16).astype(np.float32), data.target.astype(np.int32)
    images, held_images, labels, held_labels = train_test_split(
        images, labels, test_size=8 * BATCH, stratify=labels, random_state=SEED
    )
    if "--validate" in sys.argv[1:]:
        folds = StratifiedKFold(5, shuffle=True, random_state=SEED).split(images, labels)
        hits = sum(right(train(images[fit], labels[fit]), images[check], labels[check])
                   for fit, check in folds)
        print(f"cross-validation: {hits} of {len(labels)}, {100 * hits / len(labels):.2f} %")
        return

    p = train(images, labels)
    write_weights(HERE / "weights.safetensors", p)
    write_plan(HERE / "plan.json")
    (HERE / "labels.txt").write_text("".join(f"{digit}\n" for digit in range(10)))
    for i in range(8):
        rows = slice(i * BATCH, (i + 1) * BATCH)
        folder = HERE / "tests" / str(i)
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "images.npy", held_images[rows].astype("<f4"))
        np.save(folder / "scores.npy", forward(p, held_images[rows])[0].astype("<f4"))
        np.save(folder / "truth.npy", held_labels[rows].astype("<i4"))
    hits = right(p, held_images, held_labels)
    print(f"training part: {right(p, images, labels)} of {len(labels)}")
    print(f"held out: {hits} of {len(held_labels)}, {100 * hits / len(held_labels):.2f} %")


if __name__ == "__main__":
    main()
