"""Options: one definition for the command line, MLproject and Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from green_screen.options import (
    AnalyzeOptions,
    OptionError,
    TrainOptions,
    defaults,
    parse_options,
    read_config,
)
from green_screen.space import DEFAULT_CONFIG, Space


def test_no_argument_gives_the_defaults_of_the_code() -> None:
    options, factors = parse_options(TrainOptions, [], "test", factors=True)
    assert options == TrainOptions()
    assert read_config(options, factors) == Space.load().baseline


def test_defaults_parse_back_to_themselves() -> None:
    words = [word for key, value in defaults(TrainOptions).items() for word in (f"--{key}", value)]
    assert parse_options(TrainOptions, words, "test")[0] == TrainOptions()


def test_factors_left_out_take_the_baseline_of_the_configuration_in_use(tmp_path: Path) -> None:
    published = DEFAULT_CONFIG.read_text()
    custom = tmp_path / "custom.yaml"
    custom.write_text(published.replace("[4, 32, 64, 128]", "[16, 4]") + "  optimizer: SGD\n")
    words = ["--config", str(custom), "--lr", "0.01"]
    options, factors = parse_options(TrainOptions, words, "test", factors=True)
    assert factors == {"lr": "0.01"}
    config = read_config(options, factors)
    assert (config.batch_size, config.optimizer, config.lr) == (16, "SGD", 0.01)


def test_values_get_their_types() -> None:
    options, factors = parse_options(
        TrainOptions,
        ["--epochs", "3", "--samples", "100", "--log_model", "True", "--lr", "8e-4"],
        "test",
        factors=True,
    )
    assert (options.epochs, options.samples, options.log_model) == (3, 100, True)
    assert read_config(options, factors).lr == 0.0008
    assert factors == {"lr": "8e-4"}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--dataset", ""], "dataset must be a name or a path, but got ''"),
        (["--epochs", "0"], "epochs must be at least 1, but got 0"),
        (["--epochs", "two"], "epochs must be int, but got 'two'"),
        (["--samples", "3"], "samples must be at least 10"),
        (["--country", "Germany"], "country must be a three-letter ISO"),
        (["--log_model", "maybe"], "log_model must be true or false"),
        (["--config", "nowhere.yaml"], "config must be an existing file"),
        (["--min_window_s", "-1"], "min_window_s must be at least 0"),
        (["--seed", "-1"], "seed must be in"),
        (["--epoch", "3"], "unrecognized arguments: --epoch"),
    ],
)
def test_a_bad_value_ends_with_status_2_and_its_name(
    words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_options(TrainOptions, words, "test")
    assert caught.value.code == 2
    assert named in capsys.readouterr().err


def test_the_python_api_refuses_the_same() -> None:
    with pytest.raises(OptionError, match="image_size must be at least 8 pixels, but got 4"):
        TrainOptions(image_size=4)


def test_an_accuracy_to_reach_is_a_fraction() -> None:
    assert AnalyzeOptions(target_accuracy=0.5).target_accuracy == 0.5
    with pytest.raises(OptionError, match="target_accuracy must be above 0 and at most 1, but got"):
        AnalyzeOptions(target_accuracy=50)
