"""Networks as safetensors files: parameters as tensors, architecture as JSON, no code."""
