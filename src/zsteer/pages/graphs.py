"""Networks as ONNX, which runs without PyTorch, and how far what comes out differs."""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from zsteer.networks.inference import copied

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
INPUT, OUTPUT = "input", "output"
TOLERANCE = 1e-3  # largest difference of a pixel in [-1, 1], or of a logit
MARGIN = 2  # by which rounded weights keep below it on the inputs that are tried, for others may differ more


@dataclass(frozen=True)
class Graph:
    """A network of one input at a time, `[1, …]` to `[1, …]`, as the bytes of an ONNX file.

    Args:
        weights: `float16` or `float32`; what is computed is float32 in either case.
        difference: the largest of an output from PyTorch's, over the inputs that were tried.
    """

    data: bytes
    weights: str
    difference: float


def graph_of(network: nn.Module, inputs: Float[Tensor, "n ..."], role: str) -> Graph:
    """A network in eval mode as ONNX, its weights in float16 where that changes nothing that matters.

    Batch norm is left as it is: weights that are float16 numbers already, as those of the package are, would not be
    once it were folded into them. The runtime folds it itself.

    Args:
        inputs: what it is tried on.

    Raises:
        ValueError: ONNX has no word for what it does, or gives something else.
    """
    name = f"{role}.network={type(network).__name__}"
    network = copied(network).cpu().float().eval().requires_grad_(False)
    try:
        program = torch.onnx.export(
            network,
            (inputs[:1],),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            optimize=False,  # which would fold batch norm
            verbose=False,
        )
        assert program is not None
        exact = program.model_proto
    except Exception as error:  # whatever exporter and network may raise, the remedy is another network
        reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{name} cannot be exported to ONNX: {reason[0]}") from error
    expected = torch.cat([network(one) for one in inputs.split(1)]).numpy()
    difference = np.inf
    for model, weights, most in ((halved(exact), "float16", TOLERANCE / MARGIN), (exact, "float32", TOLERANCE)):
        data = model.SerializeToString()
        difference = float(np.abs(outputs_of(data, inputs) - expected).max())
        if difference <= most:
            return Graph(data, weights, difference)
    raise ValueError(f"{name} gives numbers in ONNX that differ by {difference:.2g} from PyTorch's; use another")


def halved(model: "ModelProto") -> "ModelProto":
    """The same with its weights kept in float16, and cast to float32 before anything is computed."""
    import onnx

    model = copy.deepcopy(model)
    casts = []
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype == np.float32 and np.isfinite(values.astype(np.float16)).all():
            kept = onnx.numpy_helper.from_array(values.astype(np.float16), f"{weight.name}.float16")
            casts.append(onnx.helper.make_node("Cast", [kept.name], [weight.name], to=onnx.TensorProto.FLOAT))
            weight.CopyFrom(kept)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def outputs_of(data: bytes, inputs: Float[Tensor, "n ..."]) -> np.ndarray:
    """What a graph makes of each input, `[n, …]`, by ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return np.concatenate([np.asarray(session.run([OUTPUT], {INPUT: one.numpy()})[0]) for one in inputs.split(1)])
