"""Models of other libraries as `boundcheck.models.torch_model.TorchModel`; each module needs its library."""
