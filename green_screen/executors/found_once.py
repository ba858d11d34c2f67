"""What a forkserver finds out by importing this, and the processes that it forks need not again."""

from codecarbon.core.util import detect_cpu_model

# CodeCarbon keeps the answer. It takes a second, because the clock is measured too.
detect_cpu_model()
