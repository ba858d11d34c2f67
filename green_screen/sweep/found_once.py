"""What a forkserver finds out by importing this, and the processes that it forks need not again."""

from codecarbon.core.util import detect_cpu_model

# CodeCarbon keeps the answer; to find it takes a second, in which the processor's clock is measured.
detect_cpu_model()
