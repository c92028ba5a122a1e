"""Packs trained networks in every form and runs them: outputs of lut, int2, qdq, planes and int8-lut
equal those of form float to 1e-5 relative, in the newest ONNX Runtime and, where
TERNION_OLD_RUNTIMES names a folder of environments (tests/oracle/old_runtimes.sh), in old ones.
onnx.checker accepts every file but qonnx ones, which the qonnx package executes.

usage: runtime_oracle.py PACK_TOOL quick|full     (TERNION_SHARED; exits 77 without it)
"""
import json
import os
import re
import subprocess
import sys
import tempfile

try:
    import numpy
    import onnx
    import onnxruntime
except ImportError:
    sys.exit(77)

TOOL, TIER = sys.argv[1], sys.argv[2]
SHARED = os.environ.get("TERNION_SHARED", "")
DATA = os.environ.get("TERNION_DATA", "")
OLD = os.environ.get("TERNION_OLD_RUNTIMES", "")
RUNNER = os.path.join(os.path.dirname(__file__), "..", "..", "oracle", "run_models.py")
SEED = 7
TOLERANCE = 1e-5
USAGE = 2

SCHEMES = [
    ("twn", "-", "channel"), ("twn", "-", "tensor"), ("ttq", "-", "channel"), ("ttq", "-", "tensor"),
    ("fixed", "2", "channel"), ("fixed", "3", "channel"), ("fixed", "4", "channel"),
    ("fixed", "5", "tensor"), ("fixed", "8", "channel"), ("affine", "4", "channel"),
    ("affine", "8", "channel"), ("dorefa", "2", "channel"), ("twn", "-", "group:9"),
]
FORMS = ["lut", "int2", "qdq", "planes", "int8-lut"]
failures = []


def fail(text):
    print("FAILED", text, flush=True)
    failures.append(text)


def pack(model, output, form, scheme, *options):
    command = [TOOL, model, output, form, *scheme, *options]
    return subprocess.run(command, capture_output=True, text=True)


def refuses(form, scheme):
    """What the forms cannot hold in a network of convolutions."""
    if form not in ("qdq", "int8-lut"):
        return False
    return (scheme[0] == "dorefa" or scheme[2].startswith("group") or
            (scheme[0] == "ttq" and form == "int8-lut"))


def random_input(model):
    initializers = {i.name for i in model.graph.initializer}
    value = next(i for i in model.graph.input if i.name not in initializers)
    dims = [d.dim_value or 2 for d in value.type.tensor_type.shape.dim]
    return numpy.random.default_rng(SEED).standard_normal(dims).astype(numpy.float32)


def real_input():
    """Images of CIFAR-10's test batch as its preset has them, or None."""
    path = os.path.join(DATA, "cifar10", "test_batch.bin")
    if not DATA or not os.path.exists(path):
        return None
    records = numpy.fromfile(path, numpy.uint8, 16 * 3073).reshape(16, 3073)[:, 1:]
    mean = numpy.float32([.485, .456, .406]).reshape(3, 1, 1)
    std = numpy.float32([.229, .224, .225]).reshape(3, 1, 1)
    return (records.reshape(16, 3, 32, 32).astype(numpy.float32) / 255 - mean) / std


def run(model, data):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: data})[0]


def difference(a, b):
    return float(numpy.abs(a.astype(numpy.float64) - b).max() / max(numpy.abs(b).max(), 1e-30))


def check_size(path, source, what):
    """SPEC "Size": packed codes + scales + what was not converted + 1 KiB a layer + 8 KiB."""
    model = onnx.load(path)
    record = json.loads(next(p.value for p in model.metadata_props if p.key == "ternion"))
    held = {i.name: len(i.raw_data) for i in model.graph.initializer}
    bound = os.path.getsize(source) + 8192
    for layer in record["layers"]:
        names = layer["codes"] if isinstance(layer["codes"], list) else [layer["codes"]]
        names += [layer[k] for k in ("scale", "scale_neg", "zero") if isinstance(layer.get(k), str)]
        bound += sum(held[n] for n in names) + 1024 - 4 * int(numpy.prod(layer["shape"]))
    if os.path.getsize(path) > bound:
        fail(f"{what}: {os.path.getsize(path)} bytes, bound {bound}")


def version_of(text):
    return [int(part) for part in text.split(".")]


class OldRuntimes:
    """Jobs for the old versions, run at the end in one process each."""

    def __init__(self):
        self.jobs = {}
        versions = sorted(os.listdir(OLD), key=version_of) if OLD else []
        self.oldest = versions[0] if versions else None

    def add(self, version, what, model, source, expected):
        if version and os.path.exists(os.path.join(OLD, version, "bin", "python")):
            self.jobs.setdefault(version, []).append((what, model, source, expected))

    def run(self):
        for version, jobs in self.jobs.items():
            python = os.path.join(OLD, version, "bin", "python")
            lines = "".join(f"{m} {s} {m}.{version}.npy\n" for _, m, s, _ in jobs)
            done = subprocess.run([python, RUNNER], input=lines, capture_output=True, text=True)
            results = done.stdout.splitlines()
            for k, (what, model, _, expected) in enumerate(jobs):
                result = results[k] if k < len(results) else done.stderr[-300:]
                if result != "ok":
                    fail(f"{what} on {version}: {result}")
                    continue
                d = difference(numpy.load(f"{model}.{version}.npy"), numpy.load(expected))
                if not d <= TOLERANCE:
                    fail(f"{what} on {version}: differs by {d:.3g}")
            print(f"ONNX Runtime {version}: {len(jobs)} files")


def check_form(form, scheme, source, stem, inputs, expected, old):
    what = f"{os.path.basename(source)} {'/'.join(scheme)} {form}"
    path = f"{stem}.{form}.onnx"
    packed = pack(source, path, form, scheme)
    if refuses(form, scheme):
        if packed.returncode != USAGE or "form" not in packed.stderr or os.path.exists(path):
            fail(f"{what}: not refused: {packed.returncode} {packed.stderr}")
        return
    if packed.returncode != 0:
        fail(f"{what}: {packed.returncode} {packed.stderr}")
        return
    onnx.checker.check_model(path, full_check=True)
    check_size(path, source, what)
    for data, reference in zip(inputs, expected):
        d = difference(run(path, data), reference)
        if not d <= TOLERANCE:
            fail(f"{what}: differs by {d:.3g}")
    needs = version_of(re.search(r"from ([0-9.]+)", packed.stdout.split("\n")[0]).group(1))
    for version in (old.oldest, "1.20.1", "1.24.3"):
        if version and version_of(version) >= needs:
            old.add(version, what, path, f"{stem}.input.npy", f"{stem}.expected.npy")


def check_network(source, schemes, folder, old):
    inputs = [random_input(onnx.load(source))]
    real = real_input() if "cifar10" in source else None
    if real is not None:
        inputs.append(real)
    for number, scheme in enumerate(schemes):
        stem = os.path.join(folder, f"{os.path.basename(source)}.{number}")
        packed = pack(source, stem + ".float.onnx", "float", scheme)
        if packed.returncode != 0:
            fail(f"{source} {scheme} float: {packed.stderr}")
            continue
        onnx.checker.check_model(stem + ".float.onnx", full_check=True)
        expected = [run(stem + ".float.onnx", x) for x in inputs]
        numpy.save(stem + ".input.npy", inputs[0])
        numpy.save(stem + ".expected.npy", expected[0])
        for form in FORMS:
            check_form(form, scheme, source, stem, inputs, expected, old)
    print(f"{os.path.basename(source)}: {len(schemes)} schemes", flush=True)


def check_options(source, folder):
    """--prune-dead, --rest float16, mixed widths, target runtimes on resnet20."""
    data = random_input(onnx.load(source))
    scheme, path = SCHEMES[0], os.path.join(folder, "options.onnx")
    mixed = ("fixed", "8", "channel", "rule=layer2=3", "rule=layer3=16")
    reference = os.path.join(folder, "options.float.onnx")
    # form, scheme and options, tolerance against form float, most bytes, forms that must appear
    cases = [
        ("lut", (*scheme,), 0, 140000, {"lut"}),
        ("lut", (*scheme, "prune=1"), 0, 115000, {"lut"}),
        ("lut", (*scheme, "rest=1"), 5e-3, 140000, {"lut"}),
        ("lut", (*scheme, "prune=1", "rest=1"), 5e-3, 112000, {"lut"}),
        ("lut", (*scheme, "runtime=ort-1.10"), 0, 140000, {"lut"}),
        ("lut", mixed, 0, 1 << 20, {"lut", "planes", "int2"}),
        ("qdq", mixed, TOLERANCE, 1 << 20, {"qdq"}),
        ("int8-lut", mixed, TOLERANCE, 1 << 20, {"int8-lut", "int2"}),
    ]
    for form, options, tolerance, most, forms in cases:
        what = f"{form} {' '.join(options)}"
        if pack(source, reference, "float", [o for o in options if "prune" not in o and "rest" not in o]).returncode:
            fail(f"{what}: no reference")
            continue
        packed = pack(source, path, form, options)
        if packed.returncode:
            fail(f"{what}: {packed.stderr}")
            continue
        onnx.checker.check_model(path, full_check=True)
        d = difference(run(path, data), run(reference, data))
        used = {line.split()[1] for line in packed.stdout.splitlines()[1:]}
        if not d <= tolerance or os.path.getsize(path) > most or used != forms:
            fail(f"{what}: differs by {d:.3g}, {os.path.getsize(path)} bytes, forms {used}")
        again = os.path.join(folder, "options.again.onnx")
        if pack(path, again, "float", ()).returncode or difference(run(again, data), run(path, data)) > TOLERANCE:
            fail(f"{what}: does not come back")
    for form, options in (("int2", ("runtime=ort-1.20",)), ("qdq", ("runtime=ort-1.23",))):
        packed = pack(source, path, form, (*scheme, *options))
        if packed.returncode != USAGE or "ort-1." not in packed.stderr:
            fail(f"{form} {options}: not refused: {packed.stderr}")
    print(f"{len(cases)} sets of options")


def check_qonnx(source, schemes, folder):
    try:
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
        from qonnx.transformation.infer_shapes import InferShapes
    except ImportError:
        print("qonnx is not installed: its form is not executed")
        return
    onnx.IR_VERSION = min(onnx.IR_VERSION, 13)  # what ONNX Runtime loads of its models
    data = random_input(onnx.load(source))[:1]
    for scheme in schemes:
        path, reference = os.path.join(folder, "q.onnx"), os.path.join(folder, "q.float.onnx")
        if pack(source, path, "qonnx", scheme).returncode or pack(source, reference, "float", scheme).returncode:
            fail(f"{source} {scheme} qonnx: not packed")
            continue
        model = ModelWrapper(path)
        name = model.graph.input[0].name
        model.set_tensor_shape(name, list(data.shape))
        model = model.transform(InferShapes())
        result = execute_onnx(model, {name: data})[model.graph.output[0].name]
        d = difference(result, run(reference, data))
        if not d <= TOLERANCE:
            fail(f"{source} {scheme} qonnx: differs by {d:.3g}")
    print(f"qonnx executed {len(schemes)} files")


def with_random_weights(source, output):
    """The light_ zoo files make their weights by ConstantOfShape: seeded He weights instead."""
    model = onnx.load(source)
    random = numpy.random.default_rng(SEED)
    shapes = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape" or len(shapes[node.input[0]]) < 2:
            kept.append(node)
            continue
        shape = [int(d) for d in shapes[node.input[0]]]
        fan_in = int(numpy.prod(shape[1:]))
        values = random.standard_normal(shape, numpy.float32) * numpy.float32((2 / fan_in) ** .5)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, node.output[0]))
        model.graph.input.append(onnx.helper.make_tensor_value_info(node.output[0], 1, shape))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    onnx.save(model, output)


def main():
    if not SHARED or not os.path.isdir(os.path.join(SHARED, "models")):
        sys.exit(77)
    models = os.path.join(SHARED, "models")
    old = OldRuntimes()
    with tempfile.TemporaryDirectory() as folder:
        check_options(os.path.join(models, "resnet20-cifar10.onnx"), folder)
        check_qonnx(os.path.join(models, "resnet20-cifar10.onnx"),
                    SCHEMES if TIER == "full" else SCHEMES[::4], folder)
        for name in ("resnet20-cifar10", "resnet20-cifar10-bnfolded", "densenet-small-tin"):
            few = SCHEMES if TIER == "full" or name == "resnet20-cifar10" else SCHEMES[::3]
            check_network(os.path.join(models, name + ".onnx"), few, folder, old)
        old.run()
    for name in ("light_densenet121", "light_resnet50", "light_vgg19") if TIER == "full" else ():
        with tempfile.TemporaryDirectory() as folder:
            old = OldRuntimes()
            path = os.path.join(folder, name + ".onnx")
            with_random_weights(os.path.join(models, name + ".onnx"), path)
            check_network(path, SCHEMES[:1] + SCHEMES[6:7], folder, old)
            old.run()
    if failures:
        print(f"{len(failures)} failures (seed {SEED})")
        sys.exit(1)


if __name__ == "__main__":
    main()
