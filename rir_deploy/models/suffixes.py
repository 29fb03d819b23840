"""What a checkpoint file may be called; here and not beside the reader, since the reader loads torch."""

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar")
CHECKPOINT_SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
