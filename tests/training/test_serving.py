import json
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
import tiny_training as tiny

from green_screen.network import int8
from green_screen.training import serving
from green_screen.training.run import quantized

PREDICT = """
import json, sys
import mlflow, numpy as np
model = mlflow.pyfunc.load_model(sys.argv[1])
images = np.load(sys.argv[2])
outputs = model.predict(images)
json.dump({
    "outputs": outputs.tolist(),
    "dtype": outputs.dtype.name,
    "package": sys.modules["green_screen"].__file__,
    "modules": sorted(sys.modules),
}, open(sys.argv[3], "w"))
"""
IMAGES = tiny.dataset().images[:3]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    yield mlflow.create_experiment("serving", artifact_location=f"file://{folder}/artifacts")
    mlflow.set_tracking_uri(before)


def logged(experiment, network, preprocessing):
    """Log a model and return the folder that holds it."""
    with mlflow.start_run(experiment_id=experiment) as run:
        serving.log_model(network, preprocessing, tiny.dataset())
    return Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/model"))


def predict_elsewhere(tmp_path, model):
    """Predict in a fresh process, in another folder, isolated from this checkout."""
    np.save(tmp_path / "images.npy", IMAGES)
    (tmp_path / "predict.py").write_text(PREDICT)
    arguments = [str(p) for p in (model, tmp_path / "images.npy", tmp_path / "out.json")]
    command = [sys.executable, "-I", str(tmp_path / "predict.py"), *arguments]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    return json.loads((tmp_path / "out.json").read_text())


@pytest.mark.parametrize(
    "levels",
    [
        {"precision": "float16", "preprocessing": "standardization"},
        {"internal": "pre_quantization", "preprocessing": "minmax"},
        {"internal": "post_quantization", "preprocessing": "robust_scaling"},
    ],
    ids=lambda levels: next(iter(levels.values())),
)
def test_a_logged_model_predicts_in_a_fresh_process_what_it_predicted_here(
    experiment, tmp_path, levels
):
    model, pipeline, _ = tiny.train(tiny.effective(**levels))
    network = model
    if levels.get("internal") == "post_quantization":
        network = quantized("resnet8", model, tiny.dataset(), pipeline)
    prepared = pipeline.preprocessing.apply(IMAGES)
    predict = int8.Int8Model(network).predict if isinstance(network, bytes) else model
    expected = np.asarray(predict(prepared.astype(model.input.dtype.as_numpy_dtype)))

    folder = logged(experiment, network, pipeline.preprocessing)
    answer = predict_elsewhere(tmp_path, folder)

    np.testing.assert_allclose(answer["outputs"], expected, atol=1e-3)
    assert answer["dtype"] == "float32"
    # The package beside the model is used, and nothing that only training needs.
    assert Path(answer["package"]).is_relative_to(folder)
    assert not {"tensorflow_addons", "tensorflow_model_optimization"} & set(answer["modules"])
    assert not [p for p in folder.rglob("*") if p.suffix in (".pkl", ".pickle", ".cloudpickle")]


def test_a_logged_model_says_what_it_takes_gives_and_needs(experiment):
    model, pipeline, _ = tiny.train(tiny.effective())
    folder = logged(experiment, model, pipeline.preprocessing)
    found = mlflow.models.get_model_info(str(folder))
    (given,), (returned,) = found.signature.inputs.inputs, found.signature.outputs.inputs
    assert (given.type, given.shape) == (np.uint8, (-1, 8, 8, 3))
    assert (returned.type, returned.shape) == (np.float32, (-1, 10))
    assert found.saved_input_example_info is not None
    assert found.metadata["class_names"] == list(tiny.dataset().class_names)
    pins = (folder / "requirements.txt").read_text().split()
    assert [pin.split("==")[0] for pin in pins] == ["mlflow", "numpy", "tensorflow"]
    with pytest.raises(mlflow.MlflowException, match="uint8"):
        mlflow.pyfunc.load_model(str(folder)).predict(IMAGES.astype(np.float32))
