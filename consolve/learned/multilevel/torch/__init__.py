"""The network in torch, for training."""
