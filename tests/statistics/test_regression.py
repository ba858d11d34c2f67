import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from simulated_campaign import KNOWN_EFFECTS, SimulatedCampaign, null_campaign, several
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.diagnostic import het_breuschpagan
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.stattools import durbin_watson as plain_durbin_watson

from green_screen import names
from green_screen.statistics.anova import anova_table, holm, type_two
from green_screen.statistics.diagnostics import breusch_pagan_p, condition_number, durbin_watson
from green_screen.statistics.model_matrix import MAIN_EFFECTS, build_design
from green_screen.statistics.regression import fit_energy_model

# The parts that repeat the fit many times have tests of their own.
FAST = {"permutations": 0, "cv_repeats": 0, "trees": 0}


def truths(campaign, effects):
    """Return the true ratio of each row of an effects table."""

    def optimizer_mean(optimizer):
        levels = ("0.0", "0.5", "0.9", "0.99")
        return np.mean([np.log(campaign.momentum.get((optimizer, m), 1.0)) for m in levels])

    found = []
    for row in effects.to_dict("records"):
        if row["factor"] == "optimizer_momentum":
            nest = row["within"].removeprefix("optimizer=")
            ratio = campaign.momentum.get((nest, row["level"]), 1.0)
            ratio /= campaign.momentum.get((nest, row["reference"]), 1.0)
        elif row["factor"] == "optimizer":
            ratio = np.exp(optimizer_mean(row["level"]) - optimizer_mean(row["reference"]))
        else:
            ratio = campaign.effects.get(row["factor"], {}).get(row["level"], 1.0)
        found.append(ratio)
    return np.array(found)


def ratio_of(analysis, factor, level):
    effects = analysis.effects
    return effects[(effects["factor"] == factor) & (effects["level"] == level)]["ratio"].item()


@pytest.mark.slow
def test_intervals_cover_known_effects_at_their_rate():
    covered, high = [], []
    for seed in range(12):
        campaign = SimulatedCampaign(seed=seed, drift=1.05, momentum={("SGD", "0.9"): 1.2})
        effects = fit_energy_model(campaign.frame(), **FAST).effects
        effects = effects[effects["ci_low"].notna()]
        true = truths(campaign, effects)
        covered.extend((effects["ci_low"] <= true) & (true <= effects["ci_high"]))
        high.append((effects["ratio"] / true).median())
    assert len(covered) > 350
    # About 400 intervals, those of one campaign related: a standard error of about 1.6 %.
    assert 0.90 <= np.mean(covered) <= 0.99
    assert np.mean(high) == pytest.approx(1.0, abs=0.005)


def test_known_effects_are_found_and_nothing_else_is():
    campaign = SimulatedCampaign(seed=5, n_runs=150)
    analysis = fit_energy_model(campaign.frame(), **FAST)
    assert set(KNOWN_EFFECTS) <= set(analysis.findings)
    assert set(analysis.findings) <= {*KNOWN_EFFECTS, "batch_size x internal"}
    strongest = analysis.anova.sort_values("partial_omega_sq").iloc[-1]
    assert strongest["term"] == "batch_size"
    row = analysis.effects.query("factor == 'internal' and level == 'jit_compilation'").iloc[0]
    assert row["reference"] == "None"
    assert row["ratio"] == pytest.approx(0.6, rel=0.03)
    assert row["ci_high"] - row["ci_low"] < 0.05


def test_a_null_campaign_yields_no_finding():
    # The rate is that of the next test; with 5 %, more than 1 of 8 campaigns has one of 6 %.
    frames = [null_campaign(seed, n_runs=90).frame() for seed in range(8)]
    analyses = [fit_energy_model(frame, **FAST) for frame in frames]
    assert sum(bool(analysis.findings) for analysis in analyses) <= 1


def test_the_family_wise_error_is_the_stated_one():
    rng = np.random.default_rng(0)
    with_finding = []
    for seed in range(5):
        design, matrix, _ = build_design(null_campaign(seed).frame())
        projections = type_two(design, matrix)
        for _ in range(120):
            table = anova_table(projections, rng.normal(size=len(matrix)), 0.05)
            assert table["p_holm"].notna().sum() == 12
            with_finding.append(table["finding"].any())
    # 600 campaigns without any effect: 5 % is 30; the bounds are 3 standard deviations.
    assert 14 <= sum(with_finding) <= 46


def test_holm_equals_that_of_statsmodels():
    p = np.random.default_rng(1).uniform(size=12) ** 3
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


def test_an_interaction_is_found_and_its_simple_effects_are_right():
    cells = {("128", "jit_compilation"): 0.5, ("4", "jit_compilation"): 1.5}
    campaign = SimulatedCampaign(seed=2, n_runs=200, batch_internal=cells)
    analysis = fit_energy_model(campaign.frame(), **FAST)
    assert "batch_size x internal" in analysis.findings
    assert "batch_size x precision" not in analysis.findings
    simple = analysis.simple_effects.query("level == 'jit_compilation'").set_index("within")
    for batch_size in ("4", "32", "64", "128"):
        row = simple.loc[f"batch_size={batch_size}"]
        true = 0.6 * cells.get((batch_size, "jit_compilation"), 1.0)
        assert row["ratio"] == pytest.approx(true, rel=0.06)


def test_momentum_is_nested_in_the_optimizers_that_use_it():
    campaign = SimulatedCampaign(seed=3, n_runs=200, momentum={("SGD", "0.99"): 1.5})
    analysis = fit_energy_model(campaign.frame(), **FAST)
    momentum = analysis.effects[analysis.effects["factor"] == "optimizer_momentum"]
    assert set(momentum["within"]) == {"optimizer=SGD", "optimizer=RMSProp"}
    by_place = momentum.set_index(["within", "level"])["ratio"]
    assert by_place["optimizer=SGD", "0.99"] == pytest.approx(1.5, rel=0.05)
    assert by_place["optimizer=RMSProp", "0.99"] == pytest.approx(1.0, rel=0.05)
    assert "optimizer_momentum(optimizer)" in analysis.findings


def test_sums_of_squares_equal_those_of_statsmodels():
    frame = SimulatedCampaign(seed=8, n_runs=260).frame()
    design, matrix, statements = build_design(frame)
    assert not [text for text in statements if "parameters" in text]
    y = np.log(frame[names.ENERGY_PER_EPOCH_J].to_numpy())
    ours = anova_table(type_two(design, matrix), y, 0.05).set_index("term")

    # The same model by formula; momentum as the columns of the nested term.
    data = frame.rename(columns=lambda c: c.removeprefix("effective_")).assign(y=y)
    columns = design.columns()
    nested = [i for i, name in enumerate(columns) if name.startswith("optimizer_momentum(")]
    for i in nested:
        data[f"m{i}"] = matrix[:, i]
    order, temperature = (matrix[:, columns.index(n)] for n in ("run_order", "start_temperature"))
    mains = " + ".join(f"C({factor}, Sum)" for factor in MAIN_EFFECTS)
    formula = (
        f"y ~ {mains} + {' + '.join(f'm{i}' for i in nested)} + o + t"
        " + C(batch_size, Sum):C(internal, Sum) + C(batch_size, Sum):C(precision, Sum)"
    )
    theirs = anova_lm(smf.ols(formula, data.assign(o=order, t=temperature)).fit(), typ=2)
    for term in MAIN_EFFECTS:
        if term == "optimizer":  # there its nested term counts as another main effect
            continue
        expected = theirs.loc[f"C({term}, Sum)"]
        assert ours.loc[term, "sum_sq"] == pytest.approx(expected["sum_sq"], rel=1e-6)
        assert ours.loc[term, "f"] == pytest.approx(expected["F"], rel=1e-6)
        assert ours.loc[term, "p"] == pytest.approx(expected["PR(>F)"], rel=1e-5, abs=1e-300)
    interaction = theirs.loc["C(batch_size, Sum):C(internal, Sum)"]
    assert ours.loc["batch_size x internal", "sum_sq"] == pytest.approx(interaction["sum_sq"])


def test_effects_and_tests_do_not_depend_on_the_coding():
    frame = SimulatedCampaign(seed=4).frame()
    by_sum = fit_energy_model(frame, coding="sum", **FAST)
    by_treatment = fit_energy_model(frame, coding="treatment", **FAST)
    pd.testing.assert_frame_equal(by_sum.effects, by_treatment.effects, rtol=1e-6)
    pd.testing.assert_frame_equal(by_sum.anova, by_treatment.anova, rtol=1e-6)
    assert by_sum.diagnostics.condition_number != by_treatment.diagnostics.condition_number
    with pytest.raises(ValueError, match="coding must be one of"):
        fit_energy_model(frame, coding="helmert", **FAST)


def test_machines_are_blocks():
    together = several(
        SimulatedCampaign(seed=1, n_runs=60, machine="A"),
        SimulatedCampaign(seed=2, n_runs=60, machine="B", machine_ratio=4.0),
    )
    analysis = fit_energy_model(together, **FAST)
    assert analysis.anova.iloc[0]["term"] == "machine"
    assert np.isnan(analysis.anova.iloc[0]["p_holm"])
    assert "machine" not in analysis.findings
    # Unless the machine is held constant, its factor of 4 swamps everything.
    assert analysis.diagnostics.residual_sd_percent < 5
    row = analysis.effects.query("factor == 'precision' and level == 'float64'").iloc[0]
    assert row["ratio"] == pytest.approx(1.8, rel=0.05)


def test_drift_is_held_constant_and_reported():
    campaign = SimulatedCampaign(seed=6, n_runs=120, drift=1.4)
    analysis = fit_energy_model(campaign.frame(), **FAST)
    order = analysis.covariates.set_index("covariate").loc["run_order"]
    assert order["ratio"] == pytest.approx(1.4, rel=0.05)
    assert analysis.noise.drift_low <= 1.4 <= analysis.noise.drift_high
    assert analysis.noise.drift_p < 0.001
    assert analysis.noise.noise_low_percent <= 3.0 <= analysis.noise.noise_high_percent
    assert analysis.noise.n_replicates == 13


def test_each_machine_and_campaign_drifts_in_its_own_way():
    up = SimulatedCampaign(seed=1, n_runs=90, baseline_every=5, machine="A", drift=1.6)
    down = SimulatedCampaign(seed=2, n_runs=40, baseline_every=5, machine="B", drift=1 / 1.6)
    found = fit_energy_model(several(up, down), **FAST).noise
    assert (found.n_replicates, found.n_drifts) == (28, 2)
    # One line through both would show neither drift and take them for noise.
    assert found.noise_low_percent <= 3.0 <= found.noise_high_percent < 5
    assert found.drift_low <= 1.0 <= found.drift_high
    alone = fit_energy_model(up.frame(), **FAST).noise
    assert alone.n_drifts == 1 and alone.drift_low <= 1.6 <= alone.drift_high


def test_the_order_of_runs_is_one_within_a_campaign():
    up = SimulatedCampaign(seed=1, n_runs=90, drift=1.6)
    down = SimulatedCampaign(seed=2, n_runs=60, drift=1 / 1.6)
    analysis = fit_energy_model(several(up, down), **FAST)
    drifts = analysis.covariates.set_index("covariate")
    assert drifts.loc["run_order(campaign0)", "ratio"] == pytest.approx(1.6, rel=0.05)
    assert drifts.loc["run_order(campaign1)", "ratio"] == pytest.approx(1 / 1.6, rel=0.05)
    assert drifts.loc["run_order(campaign1)", "span"] == 66
    # One slope for both would be neither, and what it misses would count as noise.
    assert analysis.diagnostics.residual_sd_percent < 4
    assert analysis.anova.set_index("term").loc["run_order", "df"] == 2
    assert 1.5 < analysis.diagnostics.durbin_watson < 2.5


def test_runs_of_no_campaign_have_an_order_of_their_own_too():
    frame = several(SimulatedCampaign(seed=1, drift=1.5), SimulatedCampaign(seed=2))
    frame["campaign"] = frame["campaign"].replace("campaign0", "")
    drifts = fit_energy_model(frame, **FAST).covariates.set_index("covariate")["ratio"]
    assert drifts["run_order()"] == pytest.approx(1.5, rel=0.05)
    assert drifts["run_order(campaign1)"] == pytest.approx(1.0, rel=0.05)


def test_neighbours_in_time_are_those_of_a_campaign_and_a_machine():
    frame = several(SimulatedCampaign(n_runs=20), SimulatedCampaign(n_runs=20, machine="B"))
    residual = np.random.default_rng(0).normal(size=len(frame))
    first = (frame["campaign"] == "campaign0").to_numpy()
    sums = [plain_durbin_watson(residual[w]) * np.sum(residual[w] ** 2) for w in (first, ~first)]
    # Each campaign's own, whatever the order of the rows; a step from one to the other is none.
    mixed = np.random.default_rng(1).permutation(len(frame))
    found = durbin_watson(residual[mixed], frame.iloc[mixed])
    n = len(residual)
    assert found == pytest.approx(sum(sums) / np.sum(residual**2) * (n - 1) / (n - 2))
    assert durbin_watson(residual[first], frame[first]) == pytest.approx(
        plain_durbin_watson(residual[first])
    )
    assert np.isnan(durbin_watson(residual, frame.assign(machine=frame["run_id"])))


@pytest.mark.filterwarnings("ignore::statsmodels.tools.sm_exceptions.SingularMatrixWarning")
def test_the_breusch_pagan_test_counts_what_can_be_told_apart():
    rng = np.random.default_rng(3)
    full = np.column_stack([np.ones(60), rng.normal(size=(60, 3))])
    residual = rng.normal(size=60) * (1 + np.abs(full[:, 1]))
    expected = het_breuschpagan(residual, full)[1]
    assert breusch_pagan_p(residual, full, 4) == pytest.approx(expected)
    twice = np.column_stack([full, full[:, 1:]])
    assert breusch_pagan_p(residual, twice, 4) == pytest.approx(expected)
    assert het_breuschpagan(residual, twice)[1] > 2 * expected


def test_parameters_that_cannot_be_told_apart_have_no_finite_condition_number():
    one = np.column_stack([np.ones(4), [1.0, 1.0, -1.0, -1.0]])
    assert condition_number(one) == pytest.approx(1.0)
    assert condition_number(np.column_stack([one, one[:, 1]])) == np.inf
    assert condition_number(np.column_stack([one, np.zeros(4)])) == np.inf


def test_responses():
    campaign = SimulatedCampaign(seed=9)
    frame = campaign.frame()
    net = fit_energy_model(frame, response="net", **FAST)
    epoch = fit_energy_model(frame, response="epoch", **FAST)
    # Half the energy everywhere in the simulation: the same ratios.
    np.testing.assert_allclose(net.effects["ratio"], epoch.effects["ratio"])
    assert net.response.metric == names.ENERGY_PER_EPOCH_NET_J
    assert fit_energy_model(frame, response="duration", **FAST).response.unit == "s"
    with pytest.raises(ValueError, match="response must be one of"):
        fit_energy_model(frame, response="power", **FAST)


def test_invalid_measurements_are_excluded_and_counted():
    campaign = SimulatedCampaign(seed=7, invalid=(3, 4), failed=(8,))
    frame = campaign.frame()
    frame.loc[12, names.ENERGY_PER_EPOCH_J] = np.nan
    frame.loc[13, names.ENERGY_PER_EPOCH_J] = 0.0
    frame.loc[14, "energy_source"] = names.SOURCE_ESTIMATE
    frame.loc[15, "kind"] = names.KIND_FINAL
    # What is excluded must not matter, whatever it says.
    frame.loc[[3, 4, 14, 15], names.ENERGY_PER_EPOCH_J] = 1e12
    analysis = fit_energy_model(frame, **FAST)
    assert dict(analysis.exclusions.itertuples(index=False)) == {
        "measurement invalid": 2,
        "did not finish: FAILED": 1,
        "energy_per_epoch_j missing": 1,
        "energy_per_epoch_j not positive": 1,
        "not the energy source of most runs": 1,
        "not a run of the campaign": 1,
    }
    assert len(analysis.runs) + len(analysis.excluded) == analysis.n_read == len(frame)
    assert analysis.diagnostics.n_runs == len(frame) - 7
    assert analysis.diagnostics.residual_sd_percent < 5


def test_campaigns_that_cannot_be_compared_are_not_pooled():
    large, small = (
        SimulatedCampaign(seed=1),
        SimulatedCampaign(seed=2, n_runs=60, dataset="cifar10"),
    )
    analysis = fit_energy_model(several(large, small), **FAST)
    assert set(analysis.runs["campaign"]) == {"campaign0"}
    assert dict(analysis.exclusions.itertuples(index=False)) == {"not the dataset of most runs": 67}
    assert "agree in model, data set, image size" in analysis.exclusion_rule


def test_of_equally_many_the_measured_runs_are_used():
    estimated = SimulatedCampaign(seed=1, n_runs=60, energy_source=names.SOURCE_ESTIMATE)
    measured = SimulatedCampaign(seed=2, n_runs=60)
    analysis = fit_energy_model(several(estimated, measured), **FAST)
    assert set(analysis.runs["energy_source"]) == {names.SOURCE_COUNTER}


def test_of_equally_many_the_earlier_campaign_is_used():
    late = SimulatedCampaign(seed=1, n_runs=60, dataset="cifar10")
    early = SimulatedCampaign(seed=2, n_runs=60, start_ms=late.start_ms - 1)
    used = fit_energy_model(several(late, early), **FAST).runs
    assert set(used["campaign"]) == {"campaign1"}


def test_runs_of_other_lengths_are_left_out_of_whole_run_responses_alone():
    frame = SimulatedCampaign(seed=7).frame()
    frame.loc[:4, "epochs"] = 100
    assert len(fit_energy_model(frame, response="total", **FAST).excluded) == 5
    assert fit_energy_model(frame, response="epoch", **FAST).excluded.empty


def no_numbers(analysis):
    tables = (analysis.anova, analysis.effects, analysis.simple_effects, analysis.covariates)
    parts = (analysis.diagnostics, analysis.cross_validation, analysis.permutation, analysis.model)
    return all(table.empty for table in tables) and all(part is None for part in parts)


def test_nothing_to_analyse_gives_statements_and_no_numbers():
    frame = SimulatedCampaign(seed=1, n_runs=40).frame()
    cases = {
        "no runs were given": frame.iloc[:0],
        "none of the 45 runs finished": frame.assign(status="FAILED"),
        "none of the 45 runs finished with a valid": frame.assign(measurement_valid="false"),
        "valid measurement of energy_per_epoch_j": frame.assign(energy_per_epoch_j=np.nan),
        "is the same in all usable runs": frame.assign(energy_per_epoch_j=7.0),
        "6 usable runs are too few": frame.iloc[:6],
        "all usable runs have the level float32": frame[frame["kind"] == names.KIND_BASELINE],
    }
    for text, runs in cases.items():
        analysis = fit_energy_model(runs.reset_index(drop=True))
        assert no_numbers(analysis), text
        assert any(text in statement for statement in analysis.statements), text


def test_a_single_level_is_stated_and_the_rest_estimated():
    frame = SimulatedCampaign(seed=1, n_runs=120).frame()
    frame["effective_precision"] = "float32"
    analysis = fit_energy_model(frame, **FAST)
    assert "precision: cannot be estimated, all usable runs have the level float32" in (
        analysis.statements
    )
    assert "precision" not in set(analysis.effects["factor"])
    assert "batch_size" in set(analysis.effects["factor"])


def test_factors_that_coincide_are_stated_and_not_both_estimated():
    frame = SimulatedCampaign(seed=1, n_runs=120).frame()
    frame["effective_lr_schedule"] = frame["effective_preprocessing"].map(
        {
            "None": "constant",
            "standardization": "cosine",
            "robust_scaling": "polynomial",
            "minmax": "exponential",
        }
    )
    analysis = fit_energy_model(frame, **FAST)
    (statement,) = [text for text in analysis.statements if text.startswith("lr_schedule")]
    assert "coincides with a combination of" in statement and "preprocessing" in statement
    assert "lr_schedule" not in set(analysis.anova["term"])
    assert "preprocessing" in set(analysis.anova["term"])
    assert np.isfinite(analysis.anova["f"]).all()


def test_an_empty_cell_leaves_only_what_depends_on_it_unknown():
    frame = SimulatedCampaign(seed=1, n_runs=200).frame()
    empty = (frame["effective_batch_size"] == "4") & (frame["effective_precision"] == "float16")
    analysis = fit_energy_model(frame[~empty], **FAST)
    simple = analysis.simple_effects.set_index(["within", "level"])["ratio"]
    assert np.isnan(simple["batch_size=4", "float16"])
    assert np.isfinite(simple["batch_size=32", "float16"])
    unknown = "precision=float16 against float32 at batch_size=4: cannot be estimated"
    assert any(text.startswith(unknown) for text in analysis.statements)
    # Marginal effects average over what occurs with both levels, and stay right.
    assert ratio_of(analysis, "batch_size", "128") == pytest.approx(0.15, rel=0.05)
    assert ratio_of(analysis, "precision", "float16") == pytest.approx(1.05, rel=0.05)


def test_held_out_runs_that_nothing_predicts_are_stated():
    frame = SimulatedCampaign(seed=0, n_runs=100).frame()
    analysis = fit_energy_model(frame, permutations=0, cv_repeats=1, trees=0)
    assert analysis.cross_validation.predicted < 1
    part = "of held-out runs cannot be predicted from the rest; its figures are of the others"
    assert any(part in text for text in analysis.statements)
    few = fit_energy_model(frame.iloc[:67], permutations=0, cv_repeats=1, trees=0)
    assert few.cross_validation is None and few.diagnostics is not None
    assert any("so there are no figures of held-out runs" in text for text in few.statements)


def test_few_runs_drop_the_least_important_terms_first():
    frame = SimulatedCampaign(seed=1, n_runs=36).frame()
    analysis = fit_energy_model(frame, **FAST)
    terms = list(analysis.anova["term"])
    assert terms[:4] == ["batch_size", "internal", "precision", "augmentation"]
    assert "batch_size x internal" not in terms
    assert analysis.diagnostics.residual_df >= 10
    assert any("usable runs are too few" in text for text in analysis.statements)


def test_an_interaction_does_not_enter_without_its_main_effects():
    frame = SimulatedCampaign(seed=1, n_runs=200).frame()
    twin = {"float16": "None", "float32": "pre_quantization", "float64": "post_quantization"}
    frame["effective_internal"] = (
        frame["effective_precision"].map(twin).fillna("jit_compilation").astype(str)
    )
    analysis = fit_energy_model(frame, **FAST)
    assert "batch_size x internal" in set(analysis.anova["term"])
    statement = "batch_size x precision: not estimated, because the main effect of precision is not"
    assert statement in analysis.statements


def test_a_campaign_without_noise_is_no_problem():
    analysis = fit_energy_model(SimulatedCampaign(seed=5, noise=0.0).frame(), **FAST)
    assert set(KNOWN_EFFECTS) <= set(analysis.findings)
    assert ratio_of(analysis, "precision", "float64") == pytest.approx(1.8, rel=1e-9)


def test_diagnostics_see_what_is_wrong():
    frame = SimulatedCampaign(seed=1, n_runs=200).frame()
    good = fit_energy_model(frame, **FAST).diagnostics
    assert good.shapiro_p > 0.001 and good.breusch_pagan_p > 0.001 and good.lack_of_fit_p > 0.001
    assert 1.5 < good.durbin_watson < 2.5
    assert good.r2 > 0.99 and good.r2_adjusted < good.r2
    assert good.condition_number < 100

    outlier = frame.copy()
    outlier.loc[50, names.ENERGY_PER_EPOCH_J] *= 3
    bad = fit_energy_model(outlier, **FAST)
    assert bad.diagnostics.shapiro_p < 1e-6
    worst = bad.residuals.sort_values("studentized").iloc[-1]
    assert worst["run_id"] == frame.loc[50, "run_id"]
    assert bad.diagnostics.max_cooks_distance > 3 * good.max_cooks_distance

    missing_term = frame.copy()
    together = (frame["effective_lr"] == "0.01") == (frame["effective_optimizer"] == "SGD")
    missing_term.loc[together, names.ENERGY_PER_EPOCH_J] *= 1.3
    assert fit_energy_model(missing_term, **FAST).diagnostics.lack_of_fit_p < 0.01
