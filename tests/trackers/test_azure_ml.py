"""Azure Machine Learning outside of Azure, where its client prints."""

import pytest

pytest.importorskip("azureml.core.run", reason="needs azureml-core: make test-trackers")

from tests.trackers.harness import assert_no_network, run


def test_figures_are_given_to_the_client(tmp_path):
    printed = run(tmp_path, "azure_ml", max_steps=3, eval_strategy="steps", eval_steps=3)
    assert printed.count("Attempted to log scalar metric loss:") == 3
    assert printed.count("Attempted to log scalar metric eval_loss:") == 1
    assert_no_network(tmp_path)
