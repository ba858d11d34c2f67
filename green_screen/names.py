"""Every metric, parameter, tag and model name that this project logs, with its unit.

Names end in their unit: ``_w`` watts, ``_j`` joules, ``_kwh`` kilowatt-hours, ``_s`` seconds,
``_c`` degrees Celsius, ``_percent``. A metric that could not be measured is NaN, and the tag
``missing_<metric>`` says why.
"""

from __future__ import annotations

EXPERIMENT = "green-screen"
MODEL_PREFIX = "green-screen-"  # of a registered model, before its architecture
MODEL_NAME = MODEL_PREFIX + "resnet50"
ENERGY_MODEL_NAME = "green-screen-energy"
CHALLENGER = "challenger"
CHAMPION = "champion"

# Parameters: the requested level is logged under the factor's own name, the effective one under
# this prefix.
EFFECTIVE_PREFIX = "effective_"

# Metrics of one epoch, step = epoch from 0.
LOSS = "loss"
ACCURACY = "accuracy"
VAL_LOSS = "val_loss"
VAL_ACCURACY = "val_accuracy"
EPOCH_TIME_S = "epoch_time_s"  # training and validation
TRAIN_TIME_S = "train_time_s"  # training alone
IMAGES_PER_S = "images_per_s"  # training images over train_time_s
LEARNING_RATE = "learning_rate"  # after the epoch's last step
EPOCH_ENERGY_J = "epoch_energy_j"  # training and validation, by energy_source
TRAIN_ENERGY_J = "train_energy_j"
VALIDATION_ENERGY_J = "validation_energy_j"
GPU_POWER_MEAN_W = "gpu_power_mean_w"
GPU_POWER_MAX_W = "gpu_power_max_w"
GPU_ENERGY_J = "gpu_energy_j"  # by the NVML counter or the integral of power
GPU_TEMPERATURE_C = "gpu_temperature_c"
GPU_UTILIZATION_PERCENT = "gpu_utilization_percent"
GPU_INTEGRAL_J = "gpu_energy_integral_j"  # by sampled power alone, to check the counter
GPU_DISAGREEMENT_PERCENT = "gpu_energy_disagreement_percent"  # of counter and integral
GPU_RESOLUTION_J = "gpu_energy_resolution_j"  # how far gpu_energy_j can be off at its edges
GPU_SM_CLOCK_MHZ = "gpu_sm_clock_mhz"
GPU_MEMORY_CLOCK_MHZ = "gpu_memory_clock_mhz"
GPU_MEMORY_USED_MIB = "gpu_memory_used_mib"
CODECARBON_CPU_KWH = "codecarbon_cpu_kwh"
CODECARBON_GPU_KWH = "codecarbon_gpu_kwh"
CODECARBON_RAM_KWH = "codecarbon_ram_kwh"
EMISSIONS_KG_CO2EQ = "emissions_kg_co2eq"
# Epochs run after the evaluation for the measurement alone.
FURTHER_EPOCH_ENERGY_J = "further_epoch_energy_j"
FURTHER_EPOCH_TIME_S = "further_epoch_time_s"

# Metrics of a run.
TEST_ACCURACY = "test_accuracy"
TEST_LOSS = "test_loss"
N_PARAMETERS = "n_parameters"
ENERGY_PER_EPOCH_J = "energy_per_epoch_j"  # mean over the steady epochs, training and validation
ENERGY_PER_EPOCH_NET_J = "energy_per_epoch_net_j"  # the same less idle power x time
ENERGY_PER_1K_IMAGES_J = "energy_per_1k_images_j"  # steady training energy
ENERGY_PER_1K_IMAGES_NET_J = "energy_per_1k_images_net_j"
STEADY_IMAGES_PER_S = "steady_images_per_s"  # training, over the same window as the joules
VALIDATION_ENERGY_PER_1K_IMAGES_J = "validation_energy_per_1k_images_j"  # of the steady epochs
STEADY_VALIDATION_IMAGES_PER_S = "steady_validation_images_per_s"
N_TRAIN_IMAGES = "n_train_images"  # training examples of an epoch
N_VALIDATION_IMAGES = "n_validation_images"
CHANCE_ACCURACY = "chance_accuracy"  # share of the validation part's most frequent class
SETUP_S = "setup_s"
WARMUP_S = "warmup_s"  # the time of the epochs before the steady state beyond steady ones
SETUP_ENERGY_J = "setup_energy_j"  # data and build
WARMUP_ENERGY_J = "warmup_energy_j"  # the energy of the same
KERNELS_ENERGY_J = "kernels_energy_j"  # a machine's first run: the driver's work, not in the total
KERNELS_S = "kernels_s"
CONVERSION_ENERGY_J = "conversion_energy_j"
CHECKPOINT_ENERGY_J = "checkpoint_energy_j"  # writing them and going on from one; in the total
CHECKPOINT_S = "checkpoint_s"
EVALUATION_ENERGY_J = "evaluation_energy_j"
OTHER_ENERGY_J = "other_energy_j"  # between the phases: logging and waiting
ENERGY_TOTAL_J = "energy_total_j"  # set-up to evaluation, without further epochs for measurement
ENERGY_TOTAL_NET_J = "energy_total_net_j"
LAW_HALF_WIDTH_PERCENT = "law_half_width_percent"  # of a sequential campaign, so far
SYSTEM_ENERGY_J = "system_energy_j"  # the same span: GPUs, CPU and memory by their counters
DURATION_S = "duration_s"  # of the same span
EMISSIONS_TOTAL_KG_CO2EQ = "emissions_total_kg_co2eq"
IDLE_POWER_W = "idle_power_w"  # what net takes off: with a GPU context, before data flow and after
IDLE_POWER_BEFORE_W = "idle_power_before_w"  # before the run, without one; no screening has it
IDLE_POWER_CONTEXT_W = "idle_power_context_w"  # with one, before data flow
IDLE_POWER_AFTER_W = "idle_power_after_w"  # with one, after the work; no screening has it
START_TEMPERATURE_C = "start_temperature_c"
STEADY_WINDOW_S = "steady_window_s"  # length of all steady epochs, further ones included
STEADY_EPOCHS = "steady_epochs"
UNSTEADY_EPOCHS = "unsteady_epochs"  # left out of every steady figure
STEADY_SM_CLOCK_MHZ = "steady_sm_clock_mhz"  # mean over the steady epochs, idle moments apart
STEADY_POWER_CAPPED_PERCENT = "steady_power_capped_percent"  # of them: held by the power limit
FURTHER_EPOCHS = "further_epochs"
FURTHER_ENERGY_J = "further_energy_j"  # not part of the total
# Of a run that several processes made, each from the last checkpoint of the one before.
PARTS = "parts"  # how many; their energies add up in the total, and their times in duration_s
CONTINUED_FROM_EPOCH = "continued_from_epoch"  # the first epoch of the last process
GAP_S = "gap_s"  # between them: from the last sign of life of one to the start of the next
ENERGY_LOST_J = "energy_lost_j"  # beside the total: spent after a checkpoint, and done again
LOST_S = "lost_s"  # the time of the same
# Of a run that a halving search has not trained to its end (yet).
TRAINED_ENERGY_J = "trained_energy_j"  # from set-up to its last epoch so far
TRAINED_S = "trained_s"
# Of a screening run, which measures a part of the training that is declared.
SCREENING_ENERGY_J = "screening_energy_j"  # what it took itself, from set-up to the last window
SCREENING_S = "screening_s"
STEADY_BLOCKS = "steady_blocks"  # of steps; steady_epochs says how many epochs they make
ENERGY_PER_STEP_J = "energy_per_step_j"
STEP_S = "step_s"
WINDOW_ERROR_PERCENT = "window_error_percent"  # standard error of the mean energy of its blocks
WINDOW_RESOLUTION_PERCENT = "window_resolution_percent"  # of the counter over the window
WINDOW_DRIFT_PERCENT = "window_drift_percent"  # of the second half's energy from the first's
# Of the declared training: set-up and all epochs, without conversion and test.
FORECAST_ENERGY_J = "forecast_energy_j"
FORECAST_ENERGY_LOW_J = "forecast_energy_low_j"  # 95 % interval
FORECAST_ENERGY_HIGH_J = "forecast_energy_high_j"
FORECAST_S = "forecast_s"
FORECAST_LOW_S = "forecast_low_s"
FORECAST_HIGH_S = "forecast_high_s"
FORECAST_EMISSIONS_KG_CO2EQ = "forecast_emissions_kg_co2eq"
FORECAST_EMISSIONS_LOW_KG_CO2EQ = "forecast_emissions_low_kg_co2eq"
FORECAST_EMISSIONS_HIGH_KG_CO2EQ = "forecast_emissions_high_kg_co2eq"
# Of each block of a screening, step = its place.
BLOCK_ENERGY_J = "block_energy_j"
BLOCK_S = "block_s"
BLOCK_STEPS = "block_steps"
VALIDATION_BLOCK_ENERGY_J = "validation_block_energy_j"
VALIDATION_BLOCK_S = "validation_block_s"

RUN_OVERHEAD_S = "run_overhead_s"  # wall time of the child less what it is for, and cool-down
COOLDOWN_S = "cooldown_s"  # waited before the run for its GPU to be as before the first run on it
COOLDOWN_TEMPERATURE_C = "cooldown_temperature_c"  # at the end of that wait
COOLDOWN_POWER_W = "cooldown_power_w"

# Metrics of a campaign's parent run.
RUNS_FINISHED = "runs_finished"
SEARCH_ENERGY_J = "search_energy_j"  # of a halving search: what all of its runs took
SEARCH_FORECAST_FULL_J = "search_forecast_full_j"  # what full training of them all would have taken
RUNS_FAILED = "runs_failed"  # in any attempt, those done again since included
DESIGN_WORST_ASSOCIATION = "design_worst_association"  # Cramer's V of two factors, 0 to 1
DESIGN_CONDITION_NUMBER = "design_condition_number"  # of the main effects; 1 is orthogonal
# The same of what is executed, momentum within the optimizers that use it.
DESIGN_EFFECTIVE_WORST_ASSOCIATION = "design_effective_worst_association"
DESIGN_EFFECTIVE_CONDITION_NUMBER = "design_effective_condition_number"

# Tags.
TAG_KIND = "green_screen.kind"  # one of the KIND_... below
TAG_POSITION = "green_screen.position"  # place in the campaign, from 0
TAG_DESIGN_HASH = "green_screen.design_hash"
TAG_RULES = "green_screen.rules"  # JSON list of the rules that changed the configuration
TAG_ENERGY_SOURCE = "energy_source"
TAG_CPU_SOURCE = "cpu_energy_source"  # what CodeCarbon used: rapl or codecarbon_estimate
TAG_MEASUREMENT_VALID = "measurement_valid"  # true or false
TAG_INVALID_REASON = "measurement_invalid_reason"
# true or false: a phase or an epoch was not measured. energy_total_j then lacks it, unless the
# counter has bridged the gap.
TAG_INCOMPLETE = "measurement_incomplete"
TAG_STARVED = "green_screen.starved"  # when it waited seconds for a CPU: a busy host, no doubt
TAG_UNSTEADY = "green_screen.unsteady"  # which epochs the steady figures leave out, and why
TAG_RUNG_EPOCHS = "green_screen.rung_epochs"  # so far a halving search trains the run for now
TAG_EPOCHS_TRAINED = "green_screen.epochs_trained"  # so far it has come
TAG_PRUNED = "green_screen.pruned"  # why the search does not go on with it
TAG_CONTINUES = "green_screen.continues"  # run ids of the processes before, joined by commas
TAG_KERNELS_OF = "green_screen.kernels_of"  # configurations that a warm-up makes the kernels of
TAG_FIRST_ON_MACHINE = "green_screen.first_on_machine"  # true: the driver had yet to make kernels
TAG_UNCHECKED = "measurement_unchecked"  # which of the rules of validity could not be checked
TAG_GPU_DEVICES = "gpu_devices"  # the boards that were measured
TAG_DIVERGED = "diverged"
TAG_OUT_OF_MEMORY = "out_of_memory"
TAG_FAILURE = "failure"
NATIVE_CRASH = "native crash"  # how it begins where a library has ended the process
TAG_AUGMENTATION_OPS = "augmentation_ops"
TAG_SHARED_HOST = "shared_host"
TAG_REPLICATE_OF = "green_screen.replicate_of"  # position of the run that this one repeats
TAG_RUNS_PLANNED = "green_screen.runs_planned"  # of a campaign, baselines and replicates included
TAG_WORST_PAIR = "green_screen.worst_pair"  # factors of design_worst_association
TAG_EFFECTIVE_WORST_PAIR = "green_screen.effective_worst_pair"
TAG_MISSING_LEVELS = "green_screen.missing_levels"  # factor=level: what no run executes
TAG_OWNER = "green_screen.owner"  # host, process id and its start: who runs the campaign now
TAG_RESUMED = "green_screen.resumed"  # of a run that mlflow made only to resume this campaign
TAG_BOARD = "green_screen.board"  # UUID of the GPU that a run was given
TAG_GPU_NAME = "gpu_name"  # none where there is no GPU
TAG_GPU_DRIVER = "gpu_driver"  # version
TAG_GPU_POWER_LIMIT_W = "gpu_power_limit_w"  # enforced during the run, one a measured board
TAG_CUDA_VERSION = "cuda_version"
TAG_CUDNN_VERSION = "cudnn_version"
TAG_CPU_NAME = "cpu_name"
TAG_CPU_CORES = "cpu_cores"
TAG_MEMORY_GIB = "memory_gib"
TAG_OPERATING_SYSTEM = "operating_system"
# The host at the run's start, as `green-screen doctor` tells it; absent where it does not tell.
TAG_HOST_LOAD = "host_load"  # runnable processes a core, mean of the last minute
TAG_HOST_STEAL_PERCENT = "host_steal_percent"  # CPU time since boot that went to other guests
TAG_HOST_GOVERNOR = "host_cpu_governor"
TAG_HOST_CLOCK = "host_clock_source"
TAG_HOST_CONTAINER = "host_container"  # none outside of one
TAG_TENSORFLOW_VERSION = "tensorflow_version"
TAG_XLA_FLAGS = "xla_flags"  # effective: this project's, then the user's
TAG_DATASET_LEFT_OUT = "dataset_left_out"  # what the data set's store holds and is not read
TAG_EXECUTION_SETTINGS = "execution_settings"  # variables that change how it was executed
TAG_IMPORTED = "green_screen.imported_from"  # folder of a run that was made elsewhere
MISSING_PREFIX = "missing_"
MISSING_TRACE = MISSING_PREFIX + "trace"  # why the file TRACE_PARQUET could not be written

KIND_SWEEP = "sweep"
KIND_RESUME = "resume"
KIND_BASELINE = "baseline"
KIND_RUN = "run"
KIND_REPLICATE = "replicate"
KIND_WARM_UP = "warm-up"  # of a board, before a campaign's runs: no position, not measured
KIND_FINAL = "final"
KIND_TRAIN = "train"
KIND_ANALYSIS = "analysis"
KIND_PROMOTION = "promotion"

# Values of TAG_ENERGY_SOURCE.
SOURCE_COUNTER = "nvml_counter"
SOURCE_POWER = "nvml_power"
SOURCE_RAPL = "rapl"  # CPU, and memory where it has a counter; of a machine without a GPU
SOURCE_ESTIMATE = "codecarbon_estimate"
SOURCE_SAMPLED = "sampled_power"  # imported runs: trapezoid over one reading an epoch
SOURCE_NONE = "none"  # a GPU was used that could not be measured

# Artifacts.
LOGS_CSV = "logs.csv"
PARAMETERS_YAML = "parameters.yaml"
TRACE_PARQUET = "trace.parquet"  # the power as it was sampled
RUNS_SUMMARY_CSV = "runs_summary.csv"
DESIGN_CSV = "design.csv"
OUTPUT_TXT = "output.txt"  # what a run that failed had printed last

TAG_MODEL_VERSION = "model_version"  # of a promotion run: name/version

# Tags of a registered model version, beside the metrics it carries under their own names.
VERSION_CAMPAIGN = "campaign"
VERSION_CAMPAIGN_RUN = "campaign_run_id"
VERSION_SOURCE_RUN = "source_run_id"
VERSION_MODEL = "model"  # its architecture
VERSION_EPOCHS = "epochs"
VERSION_PARTITIONING = "partitioning"
VERSION_DATASET = "dataset"
VERSION_HARDWARE = "hardware"
VERSION_FINAL_RUNS = "final_runs"  # how many runs its figures are means of
VERSION_DECISION = "promotion"  # promoted or refused, and why
VERSION_PROMOTED_AT = "promoted_at"  # set once it has been the champion
VERSION_ROLLED_BACK = "rolled_back"  # set when a former champion replaced it

# Of post_quantization.
INT8_MODEL_BYTES = "int8_model_bytes"  # size of the TensorFlow Lite file

# Tags of a final run and of an analysis, and an analysis's metrics.
TAG_FINAL_ROLE = "green_screen.final_role"  # baseline, selected or recommended
TAG_FINAL_PAIR = "green_screen.final_pair"  # which of the interleaved rounds, from 0
TAG_CAMPAIGN = "green_screen.campaign"  # run id of the campaign that was analysed
TAG_HEADLINE = "headline"
FINAL_ENERGY_RATIO = "final_energy_ratio"  # selected over baseline
FINAL_ENERGY_RATIO_LOW = "final_energy_ratio_low"  # 95 % interval
FINAL_ENERGY_RATIO_HIGH = "final_energy_ratio_high"
FINAL_ACCURACY_DIFFERENCE = "final_accuracy_difference"  # selected minus baseline
FINAL_ACCURACY_DIFFERENCE_LOW = "final_accuracy_difference_low"
FINAL_ACCURACY_DIFFERENCE_HIGH = "final_accuracy_difference_high"
RECOMMENDED_ENERGY_RATIO = "recommended_energy_ratio"  # recommended over the best run
RECOMMENDED_ENERGY_RATIO_LOW = "recommended_energy_ratio_low"
RECOMMENDED_ENERGY_RATIO_HIGH = "recommended_energy_ratio_high"
PREDICTED_ENERGY_J = "predicted_energy_j"  # of a whole training of the recommended, 95 % interval
PREDICTED_ENERGY_LOW_J = "predicted_energy_low_j"
PREDICTED_ENERGY_HIGH_J = "predicted_energy_high_j"
RUNS_ANALYSED = "runs_analysed"
R2_HELD_OUT = "r2_held_out"
REPORT_HTML = "report.html"
REPORT_PDF = "report.pdf"
