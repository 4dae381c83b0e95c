"""Reading public weights into the models, and files of tensors."""
