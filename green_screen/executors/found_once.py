"""What a forkserver finds out by importing this, and the processes that it forks need not again.

To be imported after all else that they need.
"""

import gc

from codecarbon.core.util import detect_cpu_model
from codecarbon.input import DataSource

# CodeCarbon keeps both answers. The first takes a second, because the clock is measured too, and
# the second, which is all of its tables, a third of one.
detect_cpu_model()
DataSource().get_global_energy_mix_data()

# A collection writes to each object that it looks at, and by that copies the page which parent and
# child share: of 40,000 pages more that a forked process touched as it set a training up, 30,000.
gc.collect()
gc.freeze()
