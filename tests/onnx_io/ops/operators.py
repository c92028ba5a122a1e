"""operators.py GRAPH_DUMP [COUNT [SEED]]: shapes and folded values of random one-node models
against ONNX Runtime (where it has no kernel: onnx.reference)."""
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from onnx.reference import ReferenceEvaluator

import single_node


def expected(model, feeds):
    """Outputs by ONNX Runtime, else by onnx.reference; None when neither runs the model."""
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        inferred = onnx.shape_inference.infer_shapes(typed, strict_mode=True)
        session = onnxruntime.InferenceSession(inferred.SerializeToString(), options,
                                               providers=["CPUExecutionProvider"])
        return session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()})
    except Exception as runtime:
        if "NOT_IMPLEMENTED" not in str(runtime) and "Could not find" not in str(runtime):
            return None
    try:
        return ReferenceEvaluator(typed).run(None, feeds)
    except Exception:
        return None


def dump(program, model):
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(model.SerializeToString())
        file.flush()
        done = subprocess.run([program, file.name], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    values = {}
    for line in done.stdout.splitlines():
        fields = line.split("\t")
        values[fields[0]] = fields[1:]
    return values


def check(case, program):
    """'' when all is well, None when there is no oracle, else what differs."""
    feeds = {f"x{i}": x for i, x in enumerate(case.inputs) if x is not None}
    model = single_node.build(case, fold=False)
    want = expected(model, feeds)
    if want is None:
        return None
    for fold in (False, True):
        got = dump(program, single_node.build(case, fold))
        if "error" in got:
            return f"refused: {got['error'][1]}"
        for k, reference in enumerate(want):
            reference = np.asarray(reference)
            fields = got[f"y{k}"]
            if int(fields[0]) != helper.np_dtype_to_tensor_dtype(reference.dtype):
                return f"output {k} has type {fields[0]}, expected {reference.dtype}"
            if fields[1].split() != [str(d) for d in reference.shape]:
                return f"output {k} has shape [{fields[1]}], expected {list(reference.shape)}"
            if not fold or not case.folds:
                continue
            if len(fields) < 3:
                return f"output {k} is not folded"
            values = np.array([float(v) for v in fields[2].split()]).reshape(reference.shape)
            scale = 1e-3 if reference.dtype == np.float16 else case.tolerance
            wide = reference.astype(np.float64)
            if not np.allclose(values, wide, rtol=scale, atol=scale, equal_nan=True):
                return f"output {k} differs by {np.nanmax(np.abs(values - wide))}"
    return ""


def main():
    program = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 600
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else int(os.environ.get("TERNION_SEED") or np.random.SeedSequence().entropy % 2**32)
    print(f"seed {seed}", flush=True)
    rng = np.random.default_rng(seed)
    checked, unknown, failures = {}, {}, 0
    for number in range(count):
        generate = single_node.GENERATORS[number % len(single_node.GENERATORS)]
        case = generate(rng, int(rng.integers(7, 26)))
        if case is None:
            continue
        result = check(case, program)
        tally = unknown if result is None else checked
        tally[case.op] = tally.get(case.op, 0) + 1
        if result:
            failures += 1
            shapes = [None if x is None else (x.dtype.name, x.shape) for x in case.inputs]
            values = [case.inputs[i].tolist() for i in case.constant
                      if i < len(case.inputs) and case.inputs[i] is not None]
            print(f"{case.op} opset {case.opset} {shapes} {case.attributes} {values}: {result}")
    print(f"{sum(checked.values())} models of {len(checked)} operators compared, "
          f"{failures} differ; no oracle for {unknown}")
    return failures > 0 or len(checked) < 40


if __name__ == "__main__":
    sys.exit(main())
