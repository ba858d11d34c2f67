"""Measuring power and energy. Imports neither TensorFlow nor MLflow."""
