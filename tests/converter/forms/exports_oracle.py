"""Torch exports (tests/oracle/export_torch.py) packed as lut, int2 and qdq: onnx.checker accepts them
and their outputs in ONNX Runtime equal those of form float; verify finds nothing.

usage: exports_oracle.py PACK_TOOL FOLDER [PATTERN]
"""
import glob
import os
import sys
import tempfile

sys.argv[2:2] = ["exports"]
import runtime_oracle as oracle  # noqa: E402  (reads the tool's path from the same arguments)

import numpy  # noqa: E402
import onnx  # noqa: E402

SCHEME = ("twn", "-", "channel", "threshold=mean:0.7")
EXTERNAL_LIMIT = 1 << 30


def input_of(path):
    model = onnx.load(path, load_external_data=False)
    dims = [d.dim_value or 1 for d in model.graph.input[0].type.tensor_type.shape.dim]
    return numpy.random.default_rng(oracle.SEED).standard_normal(dims).astype(numpy.float32)


def check(path, folder):
    name = os.path.basename(path)
    data = input_of(path)
    reference = os.path.join(folder, "float.onnx")
    packed = oracle.pack(path, reference, "float", SCHEME)
    if packed.returncode != 0:
        oracle.fail(f"{name} float: {packed.stderr}")
        return
    expected = oracle.run(reference, data)
    for form in ("lut", "int2", "qdq"):
        output = os.path.join(folder, form + ".onnx")
        packed = oracle.pack(path, output, form, SCHEME)
        if packed.returncode != 0:
            oracle.fail(f"{name} {form}: {packed.stderr}")
            continue
        try:
            onnx.checker.check_model(output, full_check=True)
            d = oracle.difference(oracle.run(output, data), expected)
        except Exception as error:
            oracle.fail(f"{name} {form}: {error}")
            continue
        if not d <= oracle.TOLERANCE:
            oracle.fail(f"{name} {form}: differs by {d:.3g}")
        again = os.path.join(folder, "again.onnx")
        if oracle.pack(output, again, "float", ()).returncode != 0:
            oracle.fail(f"{name} {form}: does not come back")
        elif not numpy.array_equal(oracle.run(again, data), oracle.run(output, data)) and form == "lut":
            oracle.fail(f"{name} {form}: comes back different")


def main():
    folder, pattern = sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else "*"
    paths = sorted(glob.glob(os.path.join(folder, pattern + ".onnx")))
    if not paths:
        sys.exit(77)
    for path in paths:
        with tempfile.TemporaryDirectory() as work:
            check(path, work)
        print(os.path.basename(path), flush=True)
    if oracle.failures:
        print(f"{len(oracle.failures)} failures")
        sys.exit(1)


if __name__ == "__main__":
    main()
