import mlflow
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tiny_training as tiny
from mlflow.tracking import MlflowClient
from tensorflow_model_optimization.python.core.quantization.keras import quantize_wrapper

from green_screen import names
from green_screen.network import fake_quant, int8
from green_screen.network.fake_quant import VectorizedQuantizer
from green_screen.network.model import build_model
from green_screen.network.quantization import n_parameters, quantization_aware
from green_screen.options import TrainOptions
from green_screen.space import Space
from green_screen.tracking import open_run
from green_screen.training import serving
from green_screen.training.run import train

IMAGES = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype(np.float32)
LABELS = np.eye(10, dtype=np.float32)[np.arange(8)]


def network():
    return build_model("resnet8", image_size=16, n_classes=10, seed=1)


def gradients_of(model):
    """Return outputs and gradients of one training step."""
    with tf.GradientTape() as tape:
        outputs = model(IMAGES, training=True)
        loss = tf.reduce_mean(tf.keras.losses.categorical_crossentropy(LABELS, outputs))
    return outputs, tape.gradient(loss, model.trainable_variables)


def train_step(model, step):
    """Return outputs, gradients and the quantizers' ranges of one training step."""
    outputs, gradients = step(model)
    tensors = [outputs, *gradients, *model.non_trainable_variables, model(IMAGES, training=False)]
    return [tensor.numpy() for tensor in tensors]


@pytest.fixture(scope="module")
def aware():
    model = quantization_aware(network())
    model(IMAGES, training=True)
    return model


def wrappers(model):
    return [x for x in model.layers if isinstance(x, quantize_wrapper.QuantizeWrapper)]


@pytest.mark.parametrize("in_a_graph", [False, True])
def test_a_step_is_bit_for_bit_that_of_the_library(in_a_graph, request):
    """Each quantizer by itself, and in a graph, where those of the weights are one."""
    # TensorFlow's optimizer of graphs fuses differently around different operations.
    option = tf.config.optimizer.set_experimental_options
    option({"disable_meta_optimizer": True})
    request.addfinalizer(lambda: option({"disable_meta_optimizer": False}))
    found = []
    for quantize in (quantization_aware, tfmot.quantization.keras.quantize_model):
        model = quantize(network())
        found.append(train_step(model, tf.function(gradients_of) if in_a_graph else gradients_of))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_quantizers_change_neither_the_initial_weights_nor_the_number_of_parameters():
    plain, aware = (tiny.build(tiny.effective(internal=x)) for x in ("None", "pre_quantization"))
    start = {weight.name: weight.numpy() for weight in aware.weights}
    for weight in plain.weights:
        np.testing.assert_array_equal(start[weight.name], weight.numpy())
    assert n_parameters(aware) == n_parameters(plain) == plain.count_params()
    assert aware.count_params() > plain.count_params()


def test_weights_that_compute_have_at_most_255_values_a_channel(aware):
    kernels = [x.layer.kernel.numpy() for x in wrappers(aware) if hasattr(x.layer, "kernel")]
    assert len(kernels) == 10  # nine convolutions, shortcuts included, and the classifier
    for kernel in kernels:
        by_channel = kernel.reshape(-1, kernel.shape[-1])
        per_channel = kernel.ndim == 4
        groups = by_channel.T if per_channel else [by_channel.ravel()]
        for values in groups:
            step = np.abs(values).max() / 127
            np.testing.assert_allclose(values / step, np.round(values / step), atol=1e-3)


def test_activations_have_at_most_256_values(aware):
    quantized = [x for x in wrappers(aware) if x._output_quantizers]
    outputs = tf.keras.Model(aware.input, [x.output for x in quantized])(IMAGES, training=True)
    assert len(outputs) >= 9
    for output in outputs:
        assert len(np.unique(output)) <= 256


@pytest.mark.slow
def test_every_quantizer_is_vectorised_and_none_launches_by_channel():
    model, pipeline, _ = tiny.trained(tiny.effective(internal="pre_quantization"))
    found = [q for x in wrappers(model) for _, q, _ in x._weight_vars]
    found += [q for x in wrappers(model) for q in x._output_quantizers]
    assert len(found) >= 20
    assert all(isinstance(q, VectorizedQuantizer) for q in found)
    operations = [node.op for node in tiny.executed_nodes(model, pipeline)]
    assert not [op for op in operations if op.startswith("FakeQuant")]
    assert "FusedBatchNormV3" in operations
    # Rounding down is what quantizers do here and nothing else does.
    plain, plain_pipeline, _ = tiny.trained(tiny.effective())
    assert operations.count("Floor") >= len(found)
    assert "Floor" not in [node.op for node in tiny.executed_nodes(plain, plain_pipeline)]


@pytest.mark.slow
def test_as_xla_programs_they_train_the_same_network_and_serve_without_xla(tmp_path):
    """On a GPU the weights' quantizers are one program, and each other one is; here on request."""
    with fake_quant.compiled(True):
        model, pipeline, history = tiny.train(tiny.effective(internal="pre_quantization"))
    _, _, plain = tiny.trained(tiny.effective(internal="pre_quantization"))
    assert history["loss"][0] == pytest.approx(plain["loss"][0], rel=0.02)

    function = model.train_function.get_concrete_function(iter(pipeline.train))
    must = [
        f for f in function.graph.as_graph_def().library.function if f.attr["_XlaMustCompile"].b
    ]
    operations = {node.op for f in must for node in f.node_def}
    assert "Floor" in operations
    assert "Conv2D" not in operations
    names_of_programs = {f.signature.name for f in must}
    nodes = [node for f in function.graph.as_graph_def().library.function for node in f.node_def]
    calls = [node for node in nodes if node.attr["f"].func.name in names_of_programs]
    inputs = sorted(len([i for i in node.input if i[0] != "^"]) for node in calls)
    # A tensor and its range; ten of these for the weights.
    assert inputs == [3] * (len(calls) - 1) + [30]
    assert len(calls) > 10

    with fake_quant.compiled(True):
        serving.save_network(tmp_path, model, pipeline.preprocessing)
    assert b"_XlaMustCompile" not in (tmp_path / "network" / "saved_model.pb").read_bytes()


def test_a_quantizer_of_another_width_is_refused():
    quantizers = tfmot.quantization.keras.quantizers
    narrow = quantizers.LastValueQuantizer(
        num_bits=4, per_axis=False, symmetric=True, narrow_range=True
    )
    with pytest.raises(TypeError, match="must be an 8-bit range quantizer"):
        VectorizedQuantizer(narrow)


@pytest.fixture(scope="module")
def converted():
    model = network()
    return model, int8.to_int8(model, IMAGES)


def test_all_tensors_of_the_converted_model_are_integers(converted):
    _, content = converted
    tensors = tf.lite.Interpreter(model_content=content).get_tensor_details()
    dtypes = [np.dtype(tensor["dtype"]).name for tensor in tensors]
    assert set(dtypes) == {"int8", "int32"}
    assert dtypes.count("int8") >= 20


def test_the_converted_file_is_about_a_quarter_of_the_weights(converted):
    model, content = converted
    float32_bytes = 4 * model.count_params()
    assert float32_bytes / 4 < len(content) < float32_bytes / 2


def test_the_converted_model_predicts_like_the_network_for_any_number_of_images(converted):
    model, content = converted
    quantized = int8.Int8Model(content)
    expected = model(IMAGES).numpy()
    for n in (8, 3, 8):
        actual = quantized.predict(IMAGES[:n])
        assert actual.shape == (n, 10)
        np.testing.assert_allclose(actual, expected[:n], atol=0.02)


SHORTCUTS = ("conv2_block1_0", "conv3_block1_0")


def test_only_the_ranges_of_shortcuts_differ_from_the_librarys_where_its_sums_spoil_them(converted):
    """TensorFlow Lite writes a sum over its first term and then reads that term's range."""
    model, content = converted
    function = tf.function(lambda batch: model(batch, training=False))
    batch = tf.TensorSpec([None, *IMAGES.shape[1:]], tf.float32, name="image")
    library = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function(batch)], model
    )
    library.experimental_lower_to_saved_model = False
    library.optimizations = [tf.lite.Optimize.DEFAULT]
    library.representative_dataset = lambda: ([image[np.newaxis]] for image in IMAGES)
    library.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    library.inference_input_type = library.inference_output_type = tf.int8
    interpreters = [tf.lite.Interpreter(model_content=c) for c in (content, library.convert())]
    ours, theirs = ({t["name"]: t for t in x.get_tensor_details()} for x in interpreters)
    assert ours.keys() == theirs.keys()
    scales = {name: t["quantization_parameters"]["scales"] for name, t in ours.items()}
    differ = [
        name
        for name, tensor in theirs.items()
        if not np.allclose(scales[name], tensor["quantization_parameters"]["scales"], rtol=1e-5)
    ]
    # A convolution's bias is as fine as its input: nothing else hangs on a shortcut's range.
    assert [[s for s in SHORTCUTS if s in name] for name in sorted(differ)] == [
        [s] for s in SHORTCUTS
    ]
    for name, shortcut in zip(sorted(differ), SHORTCUTS, strict=True):
        layer = model.get_layer(f"{shortcut}_bn").output
        values = tf.keras.Model(model.input, layer)(IMAGES).numpy()
        assert scales[name] == pytest.approx((values.max() - values.min()) / 255, rel=1e-3)


def test_activations_that_are_not_finite_are_not_converted():
    model = network()
    model.set_weights([weight * 1e18 for weight in model.get_weights()])
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    with pytest.raises(int8.NotFiniteError, match="activations"):
        int8.to_int8(model, IMAGES)


@pytest.mark.parametrize("cores", [1, 3, 30])
def test_however_many_cores_there_are_items_are_taken_once_and_results_are_in_order(
    cores, monkeypatch
):
    monkeypatch.setattr(int8, "cpu_cores", lambda: cores)
    made = []
    taken = []

    def make_worker():
        made.append(1)
        return lambda item: item**2

    def items():
        for item in range(20):
            taken.append(item)
            yield item

    assert int8._on_all_cores(make_worker, items()) == [item**2 for item in range(20)]
    assert taken == list(range(20))
    assert 1 <= len(made) <= min(cores, int8.MOST_WORKERS)


def test_an_evaluation_is_the_same_on_any_number_of_cores(converted, monkeypatch):
    _, content = converted
    batches = [(IMAGES[i : i + 2], LABELS[i : i + 2], np.ones(2)) for i in range(0, 8, 2)]
    found = []
    for cores in (1, 4):
        monkeypatch.setattr(int8, "cpu_cores", lambda cores=cores: cores)
        found.append(int8.evaluate(content, batches))
    assert found[0] == found[1]


def test_evaluation_leaves_padding_out(converted):
    _, content = converted
    quantized = int8.Int8Model(content)
    labels = np.eye(10)[quantized.predict(IMAGES).argmax(axis=1)]
    wrong = np.roll(labels, 1, axis=1)
    mixed = np.concatenate([labels[:6], wrong[6:]])
    loss, accuracy = int8.evaluate(content, [(IMAGES, mixed, np.array([1] * 6 + [0] * 2))])
    assert accuracy == 1.0
    probabilities = quantized.predict(IMAGES)[:6].max(axis=1)
    assert loss == pytest.approx(-np.log(probabilities).mean(), rel=1e-4)
    assert int8.evaluate(content, [(IMAGES, mixed, np.ones(8))])[1] == 0.75


def test_a_run_with_post_quantization_tests_and_logs_the_converted_model(tmp_path):
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    options = TrainOptions(
        dataset="synthetic", model="resnet8", epochs=1, image_size=8, samples=60, log_model=False
    )
    levels = {"batch_size": 32, "internal": "post_quantization", "precision": "float16"}
    try:
        mlflow.create_experiment(names.EXPERIMENT, artifact_location=f"file://{tmp_path}/artifacts")
        with open_run(tags={names.TAG_KIND: names.KIND_TRAIN}) as run:
            train(Space.load().parse(levels), options, run)
        metrics = MlflowClient().get_run(run.run_id).data.metrics
    finally:
        mlflow.set_tracking_uri(before)
    float32_bytes = 4 * metrics[names.N_PARAMETERS]
    assert float32_bytes / 4 < metrics[names.INT8_MODEL_BYTES] < float32_bytes / 2
    assert metrics[names.CONVERSION_ENERGY_J] > 0
    hits = 12 * metrics[names.TEST_ACCURACY]  # of the test part's 12 images
    assert hits == pytest.approx(round(hits), abs=1e-4)
    assert metrics[names.TEST_LOSS] > 0
