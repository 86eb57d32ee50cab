"""What ranks save, load and reset: one file for all of them, from which another number of ranks can go on."""

import pytest

import gradring as gr

from .test_ranks import X, Y, arrays, copies, difference, on_ranks, same, saw, trainer_of


def test_save_load_and_reset_are_collective(tmp_path):
    path = tmp_path / "ranks.safetensors"

    def body(comm):
        trainer = trainer_of(comm, accumulate=2)
        for _ in range(3):  # the gradients of the third batch wait
            trainer.step(X[:4], Y[:4])
        trainer.save(path)
        states = []
        for _ in range(2):
            trainer.step(X[8:12], Y[8:12])
            comm.barrier()
            states.append(copies(trainer))
            comm.barrier()
            trainer.load(path)
        trainer.reset(5)
        comm.barrier()
        fresh, failed = copies(trainer), saw(lambda: trainer.load(tmp_path / "none"))
        comm.barrier()
        return states, fresh, failed, saw(lambda: trainer.model.init(1)), saw(lambda: trainer.model.astype("float32"))

    found, anew = on_ranks(2, body), trainer_of()
    anew.reset(5)
    for states, fresh, failed, init, astype in found:
        assert same(*states) and same(states[0], found[0][0][0])
        assert same(fresh, arrays(anew))
        assert isinstance(failed, (FileNotFoundError, gr.errors.PeerStopped))
        assert isinstance(init, gr.GradringError) and isinstance(astype, gr.GradringError)
    assert isinstance(found[0][2], FileNotFoundError)


def test_checkpoints_are_written_by_rank_0_and_resumed_by_all(tmp_path):
    path = str(tmp_path / "at-{epoch}.safetensors")

    def body(comm, epochs, resume):
        trainer = trainer_of(comm)
        callbacks = [gr.callbacks.Checkpoint(path), gr.callbacks.Csv(tmp_path / f"log-{resume}.csv")]
        trainer.fit((X, Y), epochs=epochs, batch_size=16, callbacks=callbacks, resume=resume, verbose=0)
        comm.barrier()
        return copies(trainer), trainer.epoch

    undisturbed = on_ranks(2, lambda comm: body(comm, 4, None))
    for name in tmp_path.iterdir():
        name.unlink()
    on_ranks(2, lambda comm: body(comm, 2, "auto"))
    for found, epoch in on_ranks(2, lambda comm: body(comm, 4, "auto")):
        assert epoch == 4 and same(found, undisturbed[0][0])
    assert len(list(tmp_path.glob("at-*"))) == 4


def test_the_seed_of_rank_0_counts_in_a_reset():
    """It decides the parameters, dropout, and which samples a rank has."""

    def body(comm, more):
        trainer = trainer_of(comm, dropout=0.4)
        trainer.fit((X, Y), epochs=1, batch_size=16, verbose=0)
        trainer.reset(8 + more * comm.rank)
        trainer.fit((X, Y), epochs=2, batch_size=16, verbose=0)
        comm.barrier()
        return copies(trainer), trainer.seed

    (whole, seed), _ = on_ranks(2, lambda comm: body(comm, 0))
    for found, own in on_ranks(2, lambda comm: body(comm, 1)):
        assert own == seed == 8 and same(found, whole)


@pytest.mark.parametrize("first, then", [(2, 3), (3, 1)])
def test_a_run_is_resumed_by_another_number_of_ranks(first, then, tmp_path):
    path = tmp_path / "epoch.safetensors"

    def run(ranks, epochs, resume=None):
        def body(comm):
            trainer = trainer_of(comm)
            loader = gr.Loader((X, Y), global_batch=12, shuffle=True, seed=2)
            trainer.fit(loader, epochs=epochs, resume=resume, verbose=0)
            if resume is None:
                trainer.save(path)
            comm.barrier()
            return copies(trainer), trainer.step_count

        return on_ranks(ranks, body)[0]

    whole, steps = run(first, 4)
    run(first, 2)
    found, count = run(then, 4, path)
    assert count == steps and difference(found, whole) < 1e-11


def test_only_rank_0_removes_checkpoints(tmp_path):
    def body(comm):
        trainer = trainer_of(comm)
        folder = tmp_path / f"{comm.rank}"
        folder.mkdir()
        for epoch in range(5):
            (folder / f"at-{epoch}.safetensors").touch()  # files that stand for those of rank 0
        saves = gr.callbacks.Checkpoint(str(folder / "at-{epoch}.safetensors"), keep=1)
        trainer.fit((X, Y), epochs=4, batch_size=16, callbacks=[saves], verbose=0)
        comm.barrier()
        return sorted(path.name for path in folder.iterdir())

    first, second = on_ranks(2, body)
    assert first == ["at-0.safetensors", "at-4.safetensors"]
    assert second == [f"at-{epoch}.safetensors" for epoch in range(5)]
