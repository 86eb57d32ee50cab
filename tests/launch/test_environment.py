"""The environment variables of other launchers."""

import pytest

from gradring.launch.environment import hints

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "LOCAL_WORLD_SIZE": "4"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4", "PMIX_NAMESPACE": "77"}
HYDRA = {"PMI_RANK": "1", "PMI_SIZE": "4", "MPI_LOCALNRANKS": "4"}
SLURM = {"SLURM_PROCID": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_JOB_ID": "12"}


@pytest.mark.parametrize("variables", [TORCHRUN, OPEN_MPI, HYDRA, SLURM], ids=["torchrun", "openmpi", "hydra", "slurm"])
def test_each_launcher(variables):
    found = hints(variables)
    assert (found.rank, found.size) == (1, 4)
    assert found.elsewhere() is None


def test_no_variables_are_no_world():
    assert hints({"PATH": "/bin"}) is None


def test_a_restart_is_a_generation():
    assert hints({**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "3"}).generation == 3


@pytest.mark.parametrize(
    "shell",
    [
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "12"},  # a batch script
        {**SLURM, "SLURM_STEP_ID": str(0xFFFFFFFB)},  # the same, of newer versions
        {**SLURM, "SLURM_STEP_ID": str(0xFFFFFFFA)},  # an interactive shell
    ],
)
def test_slurms_shells_are_no_steps(shell):
    assert hints(shell) is None


@pytest.mark.parametrize("missing", ["RANK", "WORLD_SIZE"])
def test_one_of_a_pair_is_an_error_that_names_both(missing):
    variables = {key: value for key, value in TORCHRUN.items() if key != missing}
    with pytest.raises(ValueError, match=rf"{missing} is not: set both"):
        hints(variables)


@pytest.mark.parametrize(
    "name, value",
    [
        ("RANK", "4"),
        ("RANK", "-1"),
        ("RANK", "one"),
        ("WORLD_SIZE", "0"),
        ("WORLD_SIZE", "9" * 30),
        ("MASTER_PORT", "x"),
    ],
)
def test_values_out_of_bounds_are_named(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be an integer from \d+ to \d+, got"):
        hints({**TORCHRUN, name: value})


def test_a_port_is_needed():
    with pytest.raises(ValueError, match="MASTER_PORT is not"):
        hints({"RANK": "0", "WORLD_SIZE": "2"})


def test_launchers_that_disagree_are_both_named():
    with pytest.raises(ValueError, match=r"torchrun's variables .* say rank 1 of 4, Open MPI's .* say rank 0 of 4"):
        hints({**TORCHRUN, **OPEN_MPI, "OMPI_COMM_WORLD_RANK": "0"})


def test_launchers_that_agree_are_one():
    assert hints({**TORCHRUN, **OPEN_MPI}).launcher == "torchrun"


def test_a_launcher_within_another_ones_single_process():
    assert hints({**OPEN_MPI, **SLURM, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}).launcher == "Open MPI"


def test_an_address_that_cannot_be_bound_is_another_host():
    # From a block for documentation, which no host has.
    assert "192.0.2.199" in hints({**TORCHRUN, "MASTER_ADDR": "192.0.2.199"}).elsewhere()
