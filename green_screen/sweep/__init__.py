"""Many runs: designs, campaigns, executors. Never imports TensorFlow in the parent."""
