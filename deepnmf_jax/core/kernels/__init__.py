"""Inference and its approximate gradient as two fused GPU kernels."""
