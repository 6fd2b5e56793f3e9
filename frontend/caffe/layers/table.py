"""Which function lowers which type of layer. `docs/caffe-layers.md` says the same in words."""

from __future__ import annotations

import re

from wootz.frontend.caffe.layers import (
    activation,
    arithmetic,
    convolution,
    detection,
    inner_product,
    loss,
    normalization,
    pooling,
    proposal,
    rearrange,
    recurrent,
    resize,
    structure,
)
from wootz.frontend.caffe.layers.activation import EngineOnly
from wootz.frontend.caffe.lowering import LayerKind
from wootz.frontend.caffe.network import Phase

LAYERS: dict[str, LayerKind] = {
    "AbsVal": LayerKind(activation.absolute),
    "ArgMax": LayerKind(arithmetic.arg_max, arithmetic.ArgMaxParameter, ("argmax_param",)),
    "Axpy": LayerKind(arithmetic.axpy),
    "BN": LayerKind(normalization.bn, normalization.BNParameter, ("bn_param", "batch_norm_param")),
    "BNLL": LayerKind(activation.bnll),
    "BatchNorm": LayerKind(normalization.batch_norm, normalization.BatchNormParameter, ("batch_norm_param",)),
    "BatchReindex": LayerKind(rearrange.batch_reindex),
    "Bias": LayerKind(normalization.bias, normalization.BiasParameter, ("bias_param",)),
    "Clip": LayerKind(activation.clip, activation.ClipParameter, ("clip_param",)),
    "Concat": LayerKind(structure.concat, structure.ConcatParameter, ("concat_param",)),
    "Convolution": LayerKind(convolution.convolution, convolution.ConvolutionParameter, ("convolution_param",)),
    "ConvolutionDepthwise": LayerKind(
        convolution.depthwise_convolution, convolution.ConvolutionParameter, ("convolution_param",)
    ),
    "Crop": LayerKind(structure.crop, structure.CropParameter, ("crop_param",)),
    "Deconvolution": LayerKind(convolution.deconvolution, convolution.ConvolutionParameter, ("convolution_param",)),
    "DepthToSpace": LayerKind(rearrange.depth_to_space, rearrange.DepthToSpaceParameter, ("depth_to_space_param",)),
    "DepthwiseConvolution": LayerKind(
        convolution.depthwise_convolution, convolution.ConvolutionParameter, ("convolution_param",)
    ),
    "DetectionOutput": LayerKind(
        detection.detection_output, detection.DetectionOutputParameter, ("detection_output_param",)
    ),
    "Dropout": LayerKind(activation.dropout, activation.DropoutParameter, ("dropout_param",)),
    "ELU": LayerKind(activation.elu, activation.ELUParameter, ("elu_param",)),
    "EuclideanLoss": LayerKind(loss.euclidean_loss, loss.LossParameter, ("loss_param",)),
    "Eltwise": LayerKind(arithmetic.eltwise, arithmetic.EltwiseParameter, ("eltwise_param",)),
    "Embed": LayerKind(inner_product.embed, inner_product.EmbedParameter, ("embed_param",)),
    "Exp": LayerKind(activation.exponential, activation.ExponentParameter, ("exp_param",)),
    "Filter": LayerKind(rearrange.filter_images),
    "Flatten": LayerKind(structure.flatten, structure.FlattenParameter, ("flatten_param",)),
    "HardSwish": LayerKind(activation.hard_swish),
    "Im2col": LayerKind(convolution.im2col, convolution.ConvolutionParameter, ("convolution_param",)),
    "InnerProduct": LayerKind(
        inner_product.inner_product, inner_product.InnerProductParameter, ("inner_product_param",)
    ),
    "Interp": LayerKind(resize.interp, resize.InterpParameter, ("interp_param",)),
    "LRN": LayerKind(normalization.lrn, normalization.LRNParameter, ("lrn_param",)),
    "LSTM": LayerKind(recurrent.lstm, recurrent.RecurrentParameter, ("recurrent_param",)),
    "Log": LayerKind(activation.logarithm, activation.ExponentParameter, ("log_param",)),
    "Lstm": LayerKind(recurrent.fork_lstm, recurrent.LstmParameter, ("lstm_param",)),
    "MVN": LayerKind(normalization.mvn, normalization.MVNParameter, ("mvn_param",)),
    "Mish": LayerKind(activation.mish),
    "Normalize": LayerKind(normalization.normalize, normalization.NormalizeParameter, ("norm_param",)),
    "PReLU": LayerKind(activation.prelu, activation.PReLUParameter, ("prelu_param",)),
    "Pad": LayerKind(rearrange.pad, rearrange.PadParameter, ("pad_param",)),
    "Parameter": LayerKind(structure.parameter, structure.ParameterParameter, ("parameter_param",)),
    "Permute": LayerKind(structure.permute, structure.PermuteParameter, ("permute_param",)),
    "PixelShuffle": LayerKind(rearrange.pixel_shuffle, rearrange.PixelShuffleParameter, ("pixel_shuffle_param",)),
    "Pooling": LayerKind(pooling.pooling, pooling.PoolingParameter, ("pooling_param",)),
    "PSROIPooling": LayerKind(detection.psroi_pooling, detection.PSROIPoolingParameter, ("psroi_pooling_param",)),
    "Power": LayerKind(activation.power, activation.PowerParameter, ("power_param",)),
    "PriorBox": LayerKind(detection.prior_box, detection.PriorBoxParameter, ("prior_box_param",)),
    "PriorBoxClustered": LayerKind(
        detection.prior_box_clustered, detection.PriorBoxClusteredParameter, ("prior_box_param",)
    ),
    "Proposal": LayerKind(proposal.proposal, proposal.ProposalParameter, ("proposal_param",)),
    "Python": LayerKind(proposal.python, proposal.PythonParameter, ("python_param",)),
    "RNN": LayerKind(recurrent.rnn, recurrent.RecurrentParameter, ("recurrent_param",)),
    "ROIPooling": LayerKind(detection.roi_pooling, detection.ROIPoolingParameter, ("roi_pooling_param",)),
    "ReLU": LayerKind(activation.relu, activation.ReLUParameter, ("relu_param",)),
    "ReLU6": LayerKind(activation.relu6, activation.ReLUParameter, ("relu_param",)),
    "Reduction": LayerKind(arithmetic.reduction, arithmetic.ReductionParameter, ("reduction_param",)),
    "Reorg": LayerKind(resize.reorg, resize.ReorgParameter, ("reorg_param",)),
    "Reshape": LayerKind(structure.reshape, structure.ReshapeParameter, ("reshape_param",)),
    "ResizeBilinear": LayerKind(resize.resize_bilinear, resize.ResizeBilinearParameter, ("resize_bilinear_param",)),
    "ResizeNearestNeighbor": LayerKind(
        resize.resize_nearest_neighbor, resize.ResizeNearestNeighborParameter, ("resize_nearest_neighbor_param",)
    ),
    "Reverse": LayerKind(rearrange.reverse, rearrange.ReverseParameter, ("reverse_param",)),
    "SELU": LayerKind(activation.selu, activation.SeLUParameter, ("selu_param",)),
    "SPP": LayerKind(pooling.spatial_pyramid, pooling.SPPParameter, ("spp_param",)),
    "Scale": LayerKind(normalization.scale, normalization.ScaleParameter, ("scale_param",)),
    "SeLU": LayerKind(activation.selu, activation.SeLUParameter, ("selu_param",)),
    "SeLuDropout": LayerKind(activation.selu_dropout, activation.SeLUDropoutParameter, ("selu_dropout_param",)),
    "SeLu": LayerKind(activation.selu, activation.SeLUParameter, ("selu_param",)),
    "ShuffleChannel": LayerKind(
        structure.shuffle_channel, structure.ShuffleChannelParameter, ("shuffle_channel_param",)
    ),
    "Sigmoid": LayerKind(activation.sigmoid, EngineOnly, ("sigmoid_param",)),
    "SigmoidCrossEntropyLoss": LayerKind(loss.sigmoid_cross_entropy_loss, loss.LossParameter, ("loss_param",)),
    "Slice": LayerKind(structure.slice_blob, structure.SliceParameter, ("slice_param",)),
    "Softmax": LayerKind(arithmetic.softmax, arithmetic.SoftmaxParameter, ("softmax_param",)),
    "SoftmaxLoss": LayerKind(loss.softmax_with_loss, loss.LossParameter, ("loss_param", "softmax_param")),
    "SoftmaxWithLoss": LayerKind(loss.softmax_with_loss, loss.LossParameter, ("loss_param", "softmax_param")),
    "SpatialDropout": LayerKind(
        activation.spatial_dropout, activation.DropoutParameter, ("spatial_dropout_param", "dropout_param")
    ),
    "Split": LayerKind(structure.split),
    "Squeeze": LayerKind(structure.squeeze, structure.SqueezeParameter, ("squeeze_param",)),
    "Swish": LayerKind(activation.swish, activation.SwishParameter, ("swish_param",)),
    "TanH": LayerKind(activation.tanh, EngineOnly, ("tanh_param",)),
    "Threshold": LayerKind(activation.threshold, activation.ThresholdParameter, ("threshold_param",)),
    "Tile": LayerKind(structure.tile, structure.TileParameter, ("tile_param",)),
    "Transpose": LayerKind(structure.transpose, structure.TransposeParameter, ("transpose_param",)),
    "Upsample": LayerKind(resize.upsample, resize.UpsampleParameter, ("upsample_param",)),
}

REFUSED = {
    "DenseBlock": "its blobs are in another order in each fork: write its convolutions out",
    "Pooling3D": "its fields and its rounding are others in each fork: Pooling over a blob of 5 dimensions is read",
    "ROIAlign": "what its forks compute differs (averages or maxima, one or four samples a bin): use ROIPooling",
    "UnPooling": "what its forks compute differs (repeated values, or values at the maxima): use Upsample",
    "Unpooling": "what its forks compute differs (repeated values, or values at the maxima): use Upsample",
}
"""Types of forks that are known, and why they have no form here."""

REGION_LAYERS = {"ROIPooling", "PSROIPooling"}
"""Layers whose second bottom holds regions, as many as there are."""

LOSSES = {"EuclideanLoss", "SigmoidCrossEntropyLoss", "SoftmaxLoss", "SoftmaxWithLoss"}
"""The losses that are lowered when the phase is TRAIN."""

_NOT_FOR_INFERENCE = re.compile(r"Loss|Accuracy|Evaluat|^HDF5Output$|^BoxAnnotatorOHEM$|^SegmentPixelIOU$")
_RAW_HEADS = re.compile(r"^(Yolo|YOLO|yolo)|^RegionOutput$|^EvalDetection$")


def is_for_training_only(layer_type: str, phase: Phase) -> bool:
    """Whether layers of the type are left out: losses in inference, and what measures or draws in either phase.

    The heads of YOLO's forks, whose decoding has no ONNX operator, go too: their bottoms are the raw outputs.
    """
    if phase is Phase.TRAIN and (layer_type in LOSSES or "Loss" in layer_type):
        return False
    return bool(_NOT_FOR_INFERENCE.search(layer_type) or _RAW_HEADS.search(layer_type))


KNOWN_FIELDS = {field for kind in LAYERS.values() for field in kind.fields} | {
    "contrastive_loss_param",
    "data_param",
    "dummy_data_param",
    "hdf5_data_param",
    "hdf5_output_param",
    "hinge_loss_param",
    "image_data_param",
    "infogain_loss_param",
    "input_param",
    "loss_param",
    "memory_data_param",
    "parameter_param",
    "quantization_param",
    "transform_param",
    "window_data_param",
}
"""The fields of caffe.proto and of the forks that are read: on a layer of another type they have no effect."""
