// The two tables of the CPU backend.
#include "ops/cpu/cpu.h"

#define MM_OPS_REF(name, params, args) .name = mm_##name##_ref,
const struct mm_ops mm_ops_cpu_ref = {MM_OPS_TABLE(MM_OPS_REF)};

// Not yet fast: the reference stands in.
#define mm_fill_cpu mm_fill_ref
#define mm_copy_cpu mm_copy_ref
#define mm_add_cpu mm_add_ref
#define mm_scale_cpu mm_scale_ref
#define mm_embed_fwd_cpu mm_embed_fwd_ref
#define mm_embed_bwd_cpu mm_embed_bwd_ref
#define mm_gather_rows_cpu mm_gather_rows_ref
#define mm_scatter_rows_cpu mm_scatter_rows_ref
#define mm_patchify_cpu mm_patchify_ref
#define mm_add_position_fwd_cpu mm_add_position_fwd_ref
#define mm_add_position_bwd_cpu mm_add_position_bwd_ref
#define mm_pixel_shuffle_fwd_cpu mm_pixel_shuffle_fwd_ref
#define mm_pixel_shuffle_bwd_cpu mm_pixel_shuffle_bwd_ref
#define mm_rmsnorm_fwd_cpu mm_rmsnorm_fwd_ref
#define mm_rmsnorm_bwd_cpu mm_rmsnorm_bwd_ref
#define mm_l2norm_fwd_cpu mm_l2norm_fwd_ref
#define mm_l2norm_bwd_cpu mm_l2norm_bwd_ref
#define mm_swiglu_fwd_cpu mm_swiglu_fwd_ref
#define mm_swiglu_bwd_cpu mm_swiglu_bwd_ref
#define mm_gelu_fwd_cpu mm_gelu_fwd_ref
#define mm_gelu_bwd_cpu mm_gelu_bwd_ref
#define mm_qkv_rope_fwd_cpu mm_qkv_rope_fwd_ref
#define mm_qkv_rope_bwd_cpu mm_qkv_rope_bwd_ref
#define mm_attention_fwd_cpu mm_attention_fwd_ref
#define mm_attention_bwd_cpu mm_attention_bwd_ref
#define mm_attention_step_cpu mm_attention_step_ref
#define mm_mse_cpu mm_mse_ref
#define mm_kl_cpu mm_kl_ref
#define mm_cross_entropy_cpu mm_cross_entropy_ref
#define mm_sum_squares_cpu mm_sum_squares_ref
#define mm_adamw_cpu mm_adamw_ref

#define MM_OPS_FAST(name, params, args) .name = mm_##name##_cpu,
const struct mm_ops mm_ops_cpu = {MM_OPS_TABLE(MM_OPS_FAST)};
