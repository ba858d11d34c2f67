"""What comes before the first step."""

import threading

from green_screen.data.data import load_dataset
from green_screen.options import TrainOptions
from green_screen.space import Space, resolve
from green_screen.training import setup


def test_the_context_and_the_images_do_not_wait_for_each_other(monkeypatch):
    both = threading.Barrier(2)

    def read(*args, **options):
        both.wait()
        return load_dataset(*args, **options)

    monkeypatch.setattr(setup, "load_dataset", read)
    monkeypatch.setattr(setup, "synchronize_gpu", both.wait)
    config = resolve(Space.load().baseline).effective
    options = TrainOptions(dataset="digits", model="resnet8", image_size=8, samples=100, epochs=1)
    dataset, pipeline, model = setup.set_up(config, options)
    assert model.output_shape == (None, len(dataset.class_names))
    assert pipeline.images_per_epoch > 0
