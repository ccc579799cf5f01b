"""The implicit style's data: parameters by place (`Params`), and their gradients (`Grads`)."""
