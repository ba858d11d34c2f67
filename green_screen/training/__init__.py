"""One training run: data, model, optimizer, measurement."""
