#!/usr/bin/env bash
# The tests of operations that MMAMBA_TEST_BACKEND=cuda brings to a GPU, those that take longest first.
cd "$(dirname "$0")/../.."
slow="ops_step ops_linear mixer_rows ops_rows mixer_ssd ops_grad"
# mixer_whole is about a function that only the CPU has
all=$(grep -lE "open_isa|world_open|testing_cuda|for_sizes" tests/ops/test_*.c | sed 's/.*test_//; s/\.c$//' | grep -v '^mixer_whole$')
printf '%s\n' $slow $all | awk '!seen[$0]++'
