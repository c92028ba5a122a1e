"""raise_opset.py OPSET_TOOL [COUNT [SEED]]: models raised to a newer opset give what they gave.

Random one-node models of opsets 7 to 24, the same inside an If branch, and (in TERNION_SHARED/models and
TERNION_EXPORTS) whole networks, before and after in ONNX Runtime; and the list of changed operators against the
schemas of the onnx package."""
import glob
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import defs, helper

import single_node
from operators import expected


def schema_changes():
    """(operator, opset) of every change that the schemas show to be no mere extension."""
    history = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "":
            history.setdefault(schema.name, []).append(schema)
    for name, versions in history.items():
        versions.sort(key=lambda s: s.since_version)
        for old, new in zip(versions, versions[1:]):
            if not 7 < new.since_version <= 25:
                continue
            removed = set(old.attributes) - set(new.attributes)
            required = any(a.required for n, a in new.attributes.items() if n not in old.attributes)
            defaults = any(str(old.attributes[n].default_value) != str(new.attributes[n].default_value)
                           for n in old.attributes if n in new.attributes)
            if (removed or required or defaults or new.deprecated or
                    new.min_input > old.min_input or new.max_output < old.max_output):
                yield name, new.since_version


def check_table(tool):
    lines = subprocess.run([tool, "--steps"], capture_output=True, text=True, check=True).stdout
    listed = {(line.split()[0], int(line.split()[1])) for line in lines.splitlines()}
    missing = sorted(set(schema_changes()) - listed)
    print(f"{len(listed)} steps; changes in the schemas that no step covers: {missing}")
    return len(missing)


def raised(tool, model, target):
    """The raised model, or the message of the refusal."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = os.path.join(folder, "a.onnx"), os.path.join(folder, "b.onnx")
        onnx.save(model, before)
        done = subprocess.run([tool, before, after, str(target)], capture_output=True, text=True,
                              timeout=60)
        assert done.returncode in (0, 3), f"exit {done.returncode}: {done.stdout} {done.stderr}"
        if done.returncode == 3:
            assert not os.path.exists(after)
            return done.stdout.strip()
        return onnx.load(after)


def in_branch(model, case):
    """The node inside the taken branch of an If; its inputs come from the outer graph."""
    graph = model.graph
    outputs = [f"y{k}" for k in range(case.outputs)]
    branches = []
    for suffix in ("then", "else"):
        node = onnx.NodeProto()
        node.CopyFrom(graph.node[0])
        node.name = suffix
        del node.output[:]
        node.output.extend(f"{name}_{suffix}" for name in outputs)
        branches.append(helper.make_graph([node], suffix, [], [onnx.ValueInfoProto(name=n)
                                                               for n in node.output]))
    condition = helper.make_tensor("condition", onnx.TensorProto.BOOL, [], [True])
    node = helper.make_node("If", ["condition"], outputs, then_branch=branches[0],
                            else_branch=branches[1])
    result = helper.make_graph([node], "branches", graph.input, graph.output,
                               list(graph.initializer) + [condition])
    if model.ir_version < 4:
        result.input.append(helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, []))
    return helper.make_model(result, ir_version=model.ir_version, opset_imports=model.opset_import)


def compare(tool, model, feeds, target):
    """'' when equal, None without an oracle, 'refused: ...', or the difference."""
    want = expected(model, feeds)
    if want is None:
        return None
    for info, value in zip(model.graph.output, want):
        kind = helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype)
        rank = np.asarray(value).ndim  # sizes stay open: onnx and ONNX Runtime differ on some
        info.CopyFrom(helper.make_tensor_value_info(info.name, kind, [f"d{i}" for i in range(rank)]))
    new = raised(tool, model, target)
    if isinstance(new, str):
        return "refused: " + new
    if next(o.version for o in new.opset_import if o.domain == "") != target:
        return "has another opset"
    onnx.checker.check_model(new)
    got = expected(new, feeds)
    if got is None:
        return "the result does not run"
    for a, b in zip(want, got):
        if not np.allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=1e-6,
                           atol=1e-6, equal_nan=True) or np.asarray(a).shape != np.asarray(b).shape:
            return "outputs differ"
    return ""


def check_random(tool, count, seed):
    rng = np.random.default_rng(seed)
    compared = refused = failures = 0
    for number in range(count):
        generate = single_node.GENERATORS[number % len(single_node.GENERATORS)]
        case = generate(rng, int(rng.integers(7, 21)))
        if case is None:
            continue
        target = int(single_node.choice(rng, [t for t in (13, 21, 25) if t > case.opset]))
        feeds = {f"x{i}": x for i, x in enumerate(case.inputs) if x is not None}
        model = single_node.build(case, fold=False)
        nested = rng.integers(0, 4) == 0
        if nested:
            model = in_branch(model, case)
        result = compare(tool, model, feeds, target)
        if result is None:
            continue
        may_refuse = (case.op in ("Resize", "Upsample")
                      or nested and case.op in ("Softmax", "LogSoftmax", "Hardmax"))
        if result.startswith("refused") and may_refuse:
            refused += 1
            continue
        compared += 1
        if result:
            failures += 1
            shapes = [None if x is None else (x.dtype.name, x.shape) for x in case.inputs]
            print(f"{case.op} {case.opset} -> {target} {shapes} {case.attributes} "
                  f"{'nested' if nested else ''}: {result}")
    print(f"{compared} random models compared, {failures} differ, {refused} refused as they may be")
    return failures + (compared < count // 2)


def session_outputs(model, feeds):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def check_networks(tool, seed):
    rng = np.random.default_rng(seed)
    failures = 0
    folders = [os.path.join(os.environ.get("TERNION_SHARED", ""), "models"),
               os.environ.get("TERNION_EXPORTS", "")]
    for path in [p for f in folders for p in sorted(glob.glob(os.path.join(f, "*.onnx")))]:
        model = onnx.load(path)
        weights = {t.name for t in model.graph.initializer}
        feeds = {}
        for info in model.graph.input:
            if info.name not in weights:
                shape = [d.dim_value or 2 for d in info.type.tensor_type.shape.dim]
                feeds[info.name] = rng.standard_normal(shape).astype(np.float32)
        want = session_outputs(model, feeds)
        for target in (13, 21, 25):
            if target <= model.opset_import[0].version:
                continue
            new = raised(tool, model, target)
            good = not isinstance(new, str)
            if good:
                onnx.checker.check_model(new)
                good = all(np.allclose(a, b, rtol=1e-5, atol=1e-6)
                           for a, b in zip(want, session_outputs(new, feeds)))
            failures += not good
            print(f"{os.path.basename(path)} -> {target}: "
                  f"{'equal' if good else new if isinstance(new, str) else 'differs'}", flush=True)
    return failures


def check_refusals(tool):
    """All nodes that cannot be converted are named."""
    nodes = [helper.make_node("GroupNormalization", ["x", "s", "s"], [f"y{i}"], name=f"norm{i}",
                              num_groups=2) for i in range(3)]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", 1, [1, 4, 2, 2]), helper.make_tensor_value_info("s", 1, [2])],
        [helper.make_tensor_value_info(f"y{i}", 1, None) for i in range(3)])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    message = raised(tool, model, 21)
    good = isinstance(message, str) and all(f"norm{i}" in message for i in range(3))
    print(f"refusal: {message}")
    return not good


def main():
    tool = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 400
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else int(os.environ.get("TERNION_SEED") or np.random.SeedSequence().entropy % 2**32)
    print(f"seed {seed}", flush=True)
    failures = check_table(tool) + check_refusals(tool) + check_random(tool, count, seed)
    return failures + check_networks(tool, seed) > 0


if __name__ == "__main__":
    sys.exit(main())
