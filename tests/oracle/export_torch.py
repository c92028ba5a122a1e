#!/usr/bin/env python3
"""Exports torchvision networks with seeded random weights to ONNX, the way users do.

usage: export_torch.py OUT [--quick]

Every network x (classic exporter, opset 11 13 17 20; dynamo exporter, opset 18 20) x (static, dynamic batch), and with
external data for some. BatchNorm gets random statistics, so that folding it matters. --quick: small networks only.
Files that exist are left alone, so an interrupted run can go on.
"""
import os
import sys
import warnings

import torch
import torchvision

warnings.filterwarnings("ignore")
NETWORKS = ["squeezenet1_1", "mobilenet_v2", "resnet18", "densenet121", "resnet50", "alexnet", "vgg16_bn"]
LARGE = {"alexnet", "vgg16_bn"}


def network(name):
    torch.manual_seed(sum(map(ord, name)))
    model = torchvision.models.get_model(name, weights=None)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    return model.eval()


def export(model, path, opset, dynamo, dynamic, external=False, keep_bn=False):
    if os.path.exists(path):
        return
    image = torch.randn(2 if dynamo else 1, 3, 224, 224)
    options = dict(opset_version=opset, input_names=["input"], output_names=["output"])
    partial = path + ".partial"
    try:
        if dynamo:
            if dynamic:
                options["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
            torch.onnx.export(model, (image,), partial, dynamo=True, external_data=external, verbose=False, **options)
        else:
            if dynamic:
                options["dynamic_axes"] = {"input": {0: "batch"}, "output": {0: "batch"}}
            if keep_bn:
                options["training"] = torch.onnx.TrainingMode.PRESERVE
                options["do_constant_folding"] = False
            torch.onnx.export(model, (image,), partial, dynamo=False, **options)
    except Exception as error:  # an exporter that lacks an opset is no fault of ours: say so and go on
        print("skip", os.path.basename(path), type(error).__name__, str(error).split("\n")[0], flush=True)
        return
    if external and os.path.exists(partial + ".data"):
        import onnx
        whole = onnx.load(partial)
        os.remove(partial + ".data")
        onnx.save(whole, path, save_as_external_data=True, location=os.path.basename(path) + ".data", size_threshold=1024)
        os.remove(partial)
    else:
        os.rename(partial, path)
    print(os.path.basename(path), flush=True)


def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    for name in NETWORKS:
        if name in LARGE and "--quick" in sys.argv:
            continue
        model = network(name)
        few = name in LARGE
        for opset in ([13] if few else [11, 13, 17, 20]):
            for dynamic in ([True] if few else [False, True]):
                shape = "dynamic" if dynamic else "static"
                export(model, f"{out}/{name}-classic{opset}-{shape}.onnx", opset, False, dynamic)
        export(model, f"{out}/{name}-classic13-bn.onnx", 13, False, True, keep_bn=True)
        for opset in ([18] if few else [18, 20]):
            for dynamic in ([True] if few else [False, True]):
                shape = "dynamic" if dynamic else "static"
                export(model, f"{out}/{name}-dynamo{opset}-{shape}.onnx", opset, True, dynamic)
        export(model, f"{out}/{name}-dynamo18-external.onnx", 18, True, True, external=True)


if __name__ == "__main__":
    main()
