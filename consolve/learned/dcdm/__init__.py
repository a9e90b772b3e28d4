"""The networks of the deep conjugate direction method, their training and inference (torch)."""
