import numpy as np
import pytest
import tiny_training as tiny


def compiled_by_xla(model, pipeline):
    """Names of the functions that TensorFlow must hand to XLA, with how many nodes each has."""
    function = model.train_tf_function.get_concrete_function(iter(pipeline.train))
    library = function.graph.as_graph_def().library.function
    return {
        f.signature.name: [node.op for node in f.node_def]
        for f in library
        if f.attr["_XlaMustCompile"].b
    }


def test_jit_compilation_hands_the_whole_step_to_xla():
    model, pipeline, history = tiny.train(tiny.effective(internal="jit_compilation"), epochs=2)
    clusters = compiled_by_xla(model, pipeline)
    operations = [op for ops in clusters.values() for op in ops]
    step = {"Conv2D", "FusedBatchNormV3", "Conv2DBackpropFilter", "ResourceApplyGradientDescent"}
    assert step <= set(operations)
    everything = [node.op for node in tiny.executed_nodes(model, pipeline)]
    assert operations.count("Conv2D") == everything.count("Conv2D")
    assert all(np.isfinite(history["loss"]))


@pytest.mark.parametrize("internal", ["None", "post_quantization"])
def test_other_levels_compile_nothing(internal):
    model, pipeline, _ = tiny.train(tiny.effective(internal=internal))
    assert not compiled_by_xla(model, pipeline)
    operations = [node.op for node in tiny.executed_nodes(model, pipeline)]
    assert "Conv2D" in operations


@pytest.mark.parametrize("internal", ["None", "jit_compilation"])
def test_nothing_is_traced_after_the_first_epoch(internal):
    config = tiny.effective(
        internal=internal, augmentation="mixup", batch_size=4, optimizer="AdamW"
    )
    model, pipeline, _ = tiny.train(config, epochs=1)
    functions = (model.train_tf_function, model.test_function)
    before = [f.experimental_get_tracing_count() for f in functions]
    assert before == [1, 1]
    tiny.fit(model, pipeline, tiny.tf.keras.callbacks.Callback(), epochs=2)
    model.evaluate(pipeline.test, verbose=0)
    assert [f.experimental_get_tracing_count() for f in functions] == before


@pytest.mark.parametrize("batch_size", [4, 32, 64, 128])
def test_the_batch_size_is_what_a_step_computes_on(batch_size):
    dataset = tiny.load_dataset("synthetic", image_size=8, samples=240, seed=1)
    pipeline = tiny.make_pipeline(dataset, tiny.effective(batch_size=batch_size), seed=1)
    images, labels = next(iter(pipeline.train))
    assert (len(images), len(labels)) == (batch_size, batch_size)
    assert pipeline.steps_per_epoch == pipeline.n_train // batch_size


def test_every_level_of_every_factor_makes_as_many_steps_between_returns_to_python():
    levels = [{"internal": v} for v in ("None", "pre_quantization", "jit_compilation")]
    levels += [{"precision": v} for v in ("float16", "float64", "global_policy_float16")]
    steps = {int(tiny.build(tiny.effective(**x))._steps_per_execution.numpy()) for x in levels}
    assert len(steps) == 1
