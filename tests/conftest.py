"""Strict settings for every test: no silent broadcasting across ranks, no warnings."""

import gc
import os
from pathlib import Path

gc.set_threshold(100_000, 20, 20)  # tracing makes many small objects that stay

# unoptimised machine code compiles several times faster; results agree to rounding
UNOPTIMISED = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {UNOPTIMISED}"

import jax  # noqa: E402
import jax.random as jr  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

# Examples in docstrings that take long to compile; the verbs they show are tested elsewhere too.
DEAR = (
    "LatentClass",
    "LatentTreeClassifier",
    "LearningToExplain",
    "StructuredPrediction",
    "IMLEVAE",
    "MIWAE",
    "SigmoidBeliefNet",
    "HelmholtzMachine",
    "IGRVAE",
    "ConcreteVAE",
    "BoltzmannMachine",
    "DeepBoltzmannMachine",
    "DisentangledRBM",
    "EnergyBased",
    "GaussianRBM",
    "DeepBeliefNet",
    "DeepBeliefClassifier",
    "multiple_impute",
    "anomalies",
    "gradient_table",
    "imputed_interval",
    "ClassificationRBM",
    "SemiSupervisedGumbel",
    "CoupledClassifier",
    "CoupledNetwork",
    "found",
    "activation_maximisation",
    "adversarial_examples",
    "learning_alignment",
    "MonteCarloEM",
    "VariationalEM",
    "MeanFieldInference",
    "RELAX",
    "NeuralGenerativeCoding",
    "PredictiveCoding",
    "PredictiveCodingClassifier",
    "StackedDenoising",
    "DenoisingAutoencoder",
    "RecurrentForwardForward",
    "robust_accuracy",
    "filtered_in_parallel",
)

# Tests that compile much and whose code quicker ones of the same file run too.
DEAR_TESTS = (
    "test_a_bent_net_agrees_with_quadrature",
    "test_a_classifier_wants_whole_rows",
    "test_a_column_in_another_type_is_taken",
    "test_a_few_frames",
    "test_a_gaussian_is_best_of_gaussian_data",
    "test_a_large_mapped_file_is_read_as_needed_and_gives_the_same_bits",
    "test_a_linear_net_of_two_real_layers_has_the_marginal_of_its_maps",
    "test_a_machine_of_real_layers_learns_by_every_objective",
    "test_a_pipeline_goes_on_with_the_codes",
    "test_a_real_layer_over_bits_against_quadrature",
    "test_a_run_killed_at_any_moment_ends_at_the_same_bits",
    "test_a_saved_table_model_answers_in_another_process",
    "test_an_output_bias_is_where_the_net_starts",
    "test_annealing_from_the_rates_of_rows_finds_the_region_where_they_are",
    "test_best_of_several_starts",
    "test_class_probabilities_are_those_of_draws",
    "test_digits_are_told_apart_after_a_few_steps",
    "test_edits_move_rows_towards_the_label",
    "test_energies_on_top_are_free_energies",
    "test_every_estimator_learns_what_follows_from_what_is_given",
    "test_every_source_of_negatives_learns",
    "test_fits_of_several_seeds_equal_each_alone",
    "test_holes_are_filled_from_the_law_of_all_paths",
    "test_inputs_are_uncorrelated_with_three_labels",
    "test_layers_learn_from_all_rows_and_the_network_from_labels",
    "test_more_components_than_there_are_groups_lose_their_share",
    "test_more_draws_have_less_noise",
    "test_more_is_given_back_after_training",
    "test_no_cell_gets_more_than_its_norm",
    "test_no_two_can_meet",
    "test_nothing_is_asked_of_the_network",
    "test_one_start_is_as_it_was",
    "test_patterns_are_completed_and_observed_cells_stay",
    "test_probabilistic_pca_reaches_its_closed_form",
    "test_products_of_matrices_are_convolutions",
    "test_rows_without_a_label_teach_layers_too",
    "test_sentences_may_be_written_in_several_ways",
    "test_several_starts_are_no_worse_than_one_in_the_middle",
    "test_shapes_that_are_no_images_are_refused",
    "test_shares_of_robust_rows_never_rise_and_begin_at_the_accuracy",
    "test_sixty_tables",
    "test_sparsity_is_the_share_of_active_cells",
    "test_tempered_chains_show_the_last_rung",
    "test_the_best_of_several_starts_is_as_good_as_the_best_alone",
    "test_the_highest_rows_of_a_net_are_above_all_rows_and_no_cell_can_raise_them",
    "test_the_law_of_rows_is_normalised_and_sampled_around_the_settled_top",
    "test_the_step_of_variational_em_is_the_slope_of_the_bound",
    "test_what_a_hole_holds_makes_no_difference",
)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # what is imported by now is never looked through again


def pytest_collection_modifyitems(items):
    for item in items:
        if isinstance(item, pytest.DoctestItem) and item.name.rsplit(".", 1)[-1] in DEAR:
            item.add_marker(pytest.mark.slow)
        if getattr(item, "originalname", None) in DEAR_TESTS:
            item.add_marker(pytest.mark.slow)


MAPS = 30_000  # of memory; a process has 65,530 on common systems, and every compiled program maps some


@pytest.fixture(scope="module", autouse=True)
def forget(request):
    """Drop the compiled programs after a file when they have become many; always where slow tests run too."""
    yield
    maps, brief = Path("/proc/self/maps"), request.config.option.markexpr == "not slow"
    if not brief or not maps.exists() or maps.read_bytes().count(b"\n") > MAPS:
        jax.clear_caches()


@pytest.fixture
def forgetful(forget):
    """The same around a single test, however many there are, for those that compile as much as other files do."""
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.fixture
def key():
    return jr.key(20260101)


@pytest.fixture
def x64():
    """Double precision inside one test; the setting is restored afterwards."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def shell(capsys):
    """Run a command in this process: exit status, what it printed, and what it complained of."""

    def run(*words) -> tuple[int, str, str]:
        capsys.readouterr()
        from ravine.cli import main

        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return run
