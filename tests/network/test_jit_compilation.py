import numpy as np
import pytest
import tiny_training as tiny


def compiled_by_xla(function, batches):
    """Return the operations of the functions that TensorFlow must hand to XLA."""
    library = function.get_concrete_function(iter(batches)).graph.as_graph_def().library.function
    must = [f for f in library if f.attr["_XlaMustCompile"].b]
    return [node.op for f in must for node in f.node_def]


@pytest.fixture(scope="module", params=["None", "jit_compilation"])
def trained_on(request):
    """A level, a model trained 3 epochs with it, and the traces after 1 and after 3 of them."""
    config = tiny.effective(
        internal=request.param, augmentation="mixup", batch_size=4, optimizer="AdamW"
    )
    model, pipeline, history = tiny.train(config)
    assert np.isfinite(history["loss"]).all()
    functions = (model.train_function, model.test_function)
    traces = [[f.experimental_get_tracing_count() for f in functions]]
    tiny.fit(model, pipeline, tiny.tf.keras.callbacks.Callback(), epochs=2)
    model.evaluate(pipeline.test, verbose=0)
    traces.append([f.experimental_get_tracing_count() for f in functions])
    return request.param, model, pipeline, traces


def test_nothing_is_traced_after_the_first_epoch(trained_on):
    *_, traces = trained_on
    assert traces == [[1, 1], [1, 1]]


def test_jit_compilation_hands_the_whole_step_and_the_evaluation_to_xla(trained_on):
    internal, model, pipeline, _ = trained_on
    operations = compiled_by_xla(model.train_function, pipeline.train)
    evaluation = compiled_by_xla(model.test_function, pipeline.test)
    everything = [node.op for node in tiny.executed_nodes(model, pipeline)]
    assert everything.count("Conv2D") == 9
    if internal == "None":
        assert not operations and not evaluation
        return
    step = {"Conv2D", "FusedBatchNormV3", "Conv2DBackpropFilter", "ResourceApplyAdam"}
    assert step <= set(operations)
    assert operations.count("Conv2D") == evaluation.count("Conv2D") == 9


def test_post_quantization_trains_as_none_does():
    model, pipeline, _ = tiny.trained(tiny.effective(internal="post_quantization"))
    assert not compiled_by_xla(model.train_function, pipeline.train)
    plain, plain_pipeline, _ = tiny.trained(tiny.effective())
    executed = [
        sorted(node.op for node in tiny.executed_nodes(*trained))
        for trained in ((model, pipeline), (plain, plain_pipeline))
    ]
    assert executed[0] == executed[1]


@pytest.mark.parametrize(("batch_size", "samples"), [(4, 60), (32, 60), (64, 240), (128, 240)])
def test_the_batch_size_is_what_a_step_computes_on(batch_size, samples):
    config = tiny.effective(batch_size=batch_size)
    model, pipeline, _ = tiny.trained(config, samples=samples)
    (taken,) = [n for n in tiny.executed_nodes(model, pipeline) if n.op == "IteratorGetNext"]
    images, labels = taken.attr["output_shapes"].list.shape
    assert [d.size for d in images.dim] == [batch_size, tiny.SIZE, tiny.SIZE, 3]
    assert [d.size for d in labels.dim] == [batch_size, 10]
    assert model.optimizer.iterations.numpy() == pipeline.n_train // batch_size


def test_whatever_is_compiled_makes_as_many_steps_between_returns_to_python():
    levels = [{"internal": v} for v in ("None", "pre_quantization", "jit_compilation")]
    levels += [{"precision": v} for v in ("float16", "float64", "global_policy_float16")]
    levels += [{"optimizer": "AdamW"}]
    steps = {int(tiny.build(tiny.effective(**x))._steps_per_execution.numpy()) for x in levels}
    assert len(steps) == 1
