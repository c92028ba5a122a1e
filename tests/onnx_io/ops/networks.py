"""networks.py GRAPH_DUMP: type, shape and folded value of every value of whole networks against
ONNX Runtime, which is made to give them all. Models: TERNION_SHARED/models, TERNION_EXPORTS."""
import glob
import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import helper

BATCH = 2


def all_values(path, batch):
    """name -> array of every node output; the graph's own initial values stay out."""
    model = onnx.load(path)
    weights = {t.name for t in model.graph.initializer}
    rng = np.random.default_rng(0)
    feeds = {}
    for info in model.graph.input:
        if info.name in weights:
            continue
        dims = [d.dim_value for d in info.type.tensor_type.shape.dim]
        dims[0] = dims[0] or batch
        feeds[info.name] = rng.standard_normal(dims).astype(np.float32)
    listed = {o.name for o in model.graph.output}
    for node in model.graph.node:
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output
                                  if name and name not in listed)
    inferred = onnx.shape_inference.infer_shapes(model)
    kinds = {v.name: v.type for v in inferred.graph.value_info}
    for output in model.graph.output:
        if not output.HasField("type") and output.name in kinds:
            output.type.CopyFrom(kinds[output.name])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds)))


def differences(lines, values, exact):
    """Lines of what differs. Not `exact`: -1 stands for a dimension that is not known."""
    seen = 0
    for line in lines:
        fields = line.split("\t")
        if fields[0] == "error":
            yield line
        if fields[0] not in values:
            continue
        seen += 1
        array = values[fields[0]]
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        dims = fields[2].split()
        fits = len(dims) == array.ndim and all(
            d == str(e) or (not exact and d == "-1") for d, e in zip(dims, array.shape))
        if int(fields[1]) != kind or not fits:
            yield f"{fields[0]}: type {fields[1]} [{fields[2]}], expected {kind} {array.shape}"
        elif len(fields) > 3:
            got = np.array([float(v) for v in fields[3].split()]).reshape(array.shape)
            if not np.allclose(got, array.astype(np.float64), rtol=1e-6, atol=1e-7):
                yield f"{fields[0]}: the folded value differs"
    if seen != len(values):
        yield f"{seen} of {len(values)} values were listed"


def main():
    program, failures, compared = sys.argv[1], 0, 0
    folders = [os.path.join(os.environ.get("TERNION_SHARED", ""), "models"),
               os.environ.get("TERNION_EXPORTS", "")]
    paths = [p for f in folders for p in sorted(glob.glob(os.path.join(f, "*.onnx")))]
    if not paths:
        return 77
    for path in paths:
        values = all_values(path, BATCH)
        for batch in ("0", str(BATCH)):
            static = onnx.load(path, load_external_data=False).graph.input[0]
            if batch != "0" and static.type.tensor_type.shape.dim[0].dim_value not in (0, BATCH):
                continue
            done = subprocess.run([program, path, batch], capture_output=True, text=True)
            wrong = list(differences(done.stdout.splitlines(), values, batch != "0"))
            compared += len(values)
            failures += len(wrong) + (done.returncode != 0)
            if wrong or done.returncode:
                print(f"{os.path.basename(path)} batch {batch}: exit {done.returncode}, "
                      f"{len(wrong)} wrong: {wrong[:4]}", flush=True)
    print(f"{len(paths)} networks, {compared} values compared, {failures} differ")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
