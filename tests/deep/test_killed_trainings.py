"""tests/training/test_checkpoints.py, for long: trainings that are killed again and again."""

import pytest
from checkpoints import call, kill_at_random, network, stopping, summary


@pytest.mark.parametrize("seed", range(5))
def test_killed_processes(seed, tmp_path):
    pytest.importorskip("safetensors")
    n_killed, found = kill_at_random(tmp_path / "c", 40, max_iter=200, seed=seed)
    print(f"{n_killed} of 40 killed before their end")
    assert n_killed > 20 and [path.name for path in tmp_path.iterdir()] == ["c"]
    assert found == summary(network().fit(**call(max_iter=200), callbacks=[stopping()]))
