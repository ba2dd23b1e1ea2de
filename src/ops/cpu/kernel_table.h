// Body of mixer_<isa>.c: the fields of its struct mm_mixer_kernels.
.lanes = LANES, .gemm = gemm, .transpose = transpose, .pack = pack, .decay = decay, .mask = mask,
.mask_bwd = mask_bwd, .dot = dot, .scan = scan, .step = step, .conv_fwd = conv_fwd, .conv_bwd = conv_bwd,
.conv_dx = conv_dx, .head_norm_fwd = head_norm_fwd, .head_norm_bwd = head_norm_bwd,
.gated_norm_fwd = gated_norm_fwd, .gated_norm_bwd = gated_norm_bwd, .softplus_fwd = softplus_fwd,
.softplus_bwd = softplus_bwd,
