"""The commands of MLproject: arguments in, one call, exit code out."""
