"""Trainer: fit, step, evaluate, predict, save and load, over one session."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import DTypeLike, NDArray

from gradring import signals
from gradring.arguments import choice, flag, whole
from gradring.callbacks.base import Callback
from gradring.callbacks.states import require_known
from gradring.choices import MetricName, Nonfinite, Parallel, Products
from gradring.errors import NotBuilt
from gradring.files import require_readable
from gradring.fit_run import EVALUATE, WRITERS, Clock, FitRun, listeners_of, require_sizes
from gradring.gate import Gate
from gradring.habits import explained, explained_methods
from gradring.history import History
from gradring.loader import Stream
from gradring.losses import ClassWeight, Loss, LossName
from gradring.metrics import as_metrics
from gradring.optim import AdamW, Optimizer
from gradring.optim.base import require_optimizer
from gradring.options import Options, checked_lengths, parts_of, replicas_of, staleness_of
from gradring.prediction import joined_rows, numbered, prediction_inputs
from gradring.resume import checkpoint_of
from gradring.session.model_session import model_session
from gradring.session.purposes import Purpose
from gradring.session.user import UserFunction
from gradring.session.user_sessions import user_session
from gradring.trainer_base import TrainerBase, refuse_with_step
from gradring.training_state import TrainingState

if TYPE_CHECKING:
    from gradring.comm import Communicator
    from gradring.nn.layer import Layer

__all__ = ["Trainer"]


@explained_methods("predict", "predict_proba", "predict_class", "save", "load", "reset")
class Trainer(TrainerBase):
    """Trains a model natively, or updates parameters with gradients of your own.

    Two forms::

        Trainer(model, loss="cross_entropy", optimizer=gr.optim.AdamW(1e-3))
        Trainer(step=fn, params={"w": w, "b": b}, optimizer=gr.optim.SGD(0.1))

    In the second, ``fn(params, batch)`` returns the loss, a dict of gradients with the names of ``params``, and
    optionally the number of samples; arrays may be of any framework whose CPU memory NumPy can view, or lie on a CUDA
    device (CuPy's, PyTorch's, ``gr.cuda.Array``), and are updated in place. With ``replicas`` or
    ``shards``, it is called for parts of each batch; with ``replicas``, from several threads at the same time.

    ``loss`` is one of ``gr.losses``, or a name: ``"cross_entropy"`` (int labels), ``"mse"``, ``"mae"``, ``"huber"`` or
    ``"binary_cross_entropy"``. A batch may have weights of its samples after the targets, or as the field ``"weight"``: the
    loss of an update, an epoch or an evaluation is then the sum of the weighted losses over the sum of the weights.
    ``class_weight`` weighs the samples of each class: a dict of weights by class number (1 for those that are not named), an
    array with one for each class, or ``"balanced"``, which makes every class count equally in the labels given to ``fit``;
    these must be in memory or in files. Metrics ignore weights and count every sample once. ``metrics`` are names
    (``"accuracy"``, ``"mae"``, ``"r2"``), ``gr.metrics``, and functions of an epoch's predictions and targets, which have the
    dtype that the loss reads (int64, or that of the model); other metrics than the accuracy make an epoch slower, because each
    batch is then also predicted. ``device`` is where parameters, gradients and optimizer state lie and steps run: ``"cpu"``,
    ``"cuda"``, or ``"cuda:1"`` for the second CUDA device, on which the loss of ``step`` is a number that waits when it is
    read. ``threads`` are those of one step on the CPU.
    ``replicas`` train data-parallel: each computes the gradients of its rows of every batch on threads of its own, and
    together they make one update of the same parameters. ``shards``, a power of two that ``replicas`` divides, cuts each batch
    into that many parts, whose sums are added in a fixed order: the results then have the same bits for any number of replicas,
    and of ranks. With ``comm``, each rank has that many replicas. With ``parallel="locked"``, ``"atomic"`` or ``"hogwild"``
    they are workers that each take whole batches and update the same parameters without waiting for each other: under locks
    with any optimizer, by compare-and-swap, or by plain loads and stores, the last two with ``SGD`` without momentum. Without
    ``replicas`` there is one worker, which trains as a serial run does. ``staleness``
    bounds how many updates of others may come between a worker's reading of the parameters and its own update; ``sharing()``
    has the counts. ``accumulate`` adds the gradients of that many batches before an
    update. ``clip_norm`` scales gradients whose global norm is larger. With ``nonfinite="raise"``, a loss that is NaN or
    infinite raises ``NonFinite``, and the parameters stay as before that step. ``seed`` decides initial parameters, dropout
    and, for plain arrays, the order; None means 0. A model that has parameters keeps them. After ``model.init`` or a load,
    ``seed`` then only affects dropout and order; after a training it is an error: leave it out, or call ``reset(seed)`` for
    new parameters. You may assign another optimizer to ``trainer.optimizer`` at any time; the next step uses it. One of the
    same kind (such as AdamW after Adam) continues with the old one's state; another kind begins without state.

    With ``tune=True``, a CUDA device chooses the algorithm of each matrix product by timing, when a batch shape first comes.
    Plans and checkpoints record the choices, so that a resumed training has the same bits; another device, or another version
    of its library, ignores the record and chooses anew. On the CPU, which has one algorithm, ``tune`` has no effect.

    ``dtype`` is that of parameters and arithmetic, ``"float32"`` or ``"float64"``. With ``"bfloat16"`` everything is float32
    but the matrices that products read, which are rounded to bfloat16: far faster where the CPU has a tile unit. With
    ``"tf32"``, on CUDA devices alone, they are rounded to tf32, which has 10 bits behind the first one. With
    ``"float16"`` they are rounded to float16, and the loss is scaled, so that small gradients stay above zero:
    ``loss_scale`` is the scale. A step whose gradients are infinite or NaN halves it and is skipped: it changes neither
    parameters nor optimizer state nor buffers, is no update, and its batch counts as read. At the scale 1 it
    raises ``NonFinite``.
    ``products`` says how float32 matrices are multiplied in steps and evaluations on the CPU, as ``gr.set_float32_products``
    does, whose choice counts without it and for ``predict``. ``plan()`` shows both, and files record neither.

    With ``comm``, a communicator of ``gr.comm.init``, the ranks train one model together: all of them make the same trainer
    and call the same methods, and each gives its own batches. The initial parameters of rank 0 count. An error or a signal
    that stops one rank stops all of them after the same update; the others raise ``PeerStopped``, ``PeerDied`` or
    ``PeerStalled``, which name it.

    ``frozen`` are patterns over the parameters' names, such as ``"0.*"`` for all of layer 0: training does not change
    these parameters, what only their gradients would need is not computed, and the optimizer keeps nothing for them. Their
    layers still behave as in training: dropout is drawn, and running moments move. Each pattern must match a parameter. To
    thaw them, make a new trainer of the same model, which keeps its parameters.

    Any number of threads may call ``predict`` at the same time; during a ``fit`` in another thread, ``predict``,
    ``evaluate``, ``save`` and ``state_dict`` run between two of its chunks, so within about 0.2 s, on the parameters of a
    whole step. Methods that train serve one thread at a time; another thread that calls one gets a ``GradringError``. Any
    number of trainers may work at the same time.

    >>> import gradring as gr
    >>> train, test = gr.datasets.digits()
    >>> model = gr.nn.Sequential(gr.nn.Linear(64, 32), gr.nn.ReLU(), gr.nn.Linear(32, 10))
    >>> trainer = gr.Trainer(model, optimizer=gr.optim.AdamW(1e-2))
    >>> history = trainer.fit(train, epochs=5, validate=test)
    >>> history.last["val_accuracy"] > 0.9
    True
    """

    # loss = trainer.step(x, y) or step(x, y, weight): one update from one batch, without running statistics. It is an
    # attribute, which holds the session's native function, because a Python method around it would cost as much as a
    # small step's arithmetic.
    step: Callable[..., float]

    def __init__(
        self,
        model: Layer | None = None,
        loss: LossName | Loss = "cross_entropy",
        optimizer: Optimizer | None = None,
        *,
        metrics: Sequence[MetricName | Callable[..., float]] = ("accuracy",),
        frozen: str | Sequence[str] = (),
        class_weight: ClassWeight = None,
        device: str = "cpu",
        dtype: DTypeLike = "float32",
        replicas: int | Literal["auto"] = "auto",
        threads: int | Literal["auto"] = "auto",
        parallel: Parallel = "allreduce",
        staleness: int | None = None,
        shards: int | None = None,
        accumulate: int = 1,
        clip_norm: float | None = None,
        nonfinite: Nonfinite = "raise",
        seed: int | None = None,
        comm: Communicator | None = None,
        tune: bool = False,
        products: Products | None = None,
        step: UserFunction | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        if (model is None) == (step is None):
            raise TypeError("[Trainer] needs either a model, or step and params")
        copies = replicas_of(device=device, replicas=replicas, parallel=parallel, comm=comm)
        pieces = parts_of(shards, copies, parallel=parallel, comm=comm, device=device)
        bound, tune = staleness_of(parallel, staleness), flag("Trainer", "tune", tune)
        chosen = as_metrics("Trainer", metrics)
        optimizer = AdamW() if optimizer is None else optimizer
        require_optimizer(optimizer)
        options = Options.checked(
            "Trainer",
            dtype=dtype,
            threads=threads,
            accumulate=accumulate,
            clip_norm=clip_norm,
            nonfinite=nonfinite,
            seed=0 if seed is None else seed,
        )
        self.model = model
        if step is not None:
            if params is None:
                raise TypeError("[Trainer] step needs params, a dict of arrays")
            if parallel != "allreduce":
                raise NotBuilt(f"parallel={parallel!r} with step= is planned; this version has 'allreduce' there")
            given = {"loss": loss, "metrics": metrics, "class_weight": class_weight, "products": products, "dtype": dtype}
            refuse_with_step({**given, "threads": threads, "tune": tune}, _default)
            user = user_session(
                step,
                params,
                device=device,
                optimizer=optimizer,
                options=options,
                frozen=frozen,
                replicas=copies,
                shards=pieces,
                comm=comm,
            )
            self._session, self.step = user, user.step_of
        elif params is not None:
            raise TypeError("[Trainer] params go with step; a model has its own")
        elif model is not None:
            native = model_session(
                model,
                loss=loss,
                metrics=chosen,
                said=metrics is not _default("metrics"),
                seed=seed,
                optimizer=optimizer,
                frozen=frozen,
                class_weight=class_weight,
                replicas=copies,
                shards=pieces,
                parallel=parallel,
                staleness=bound,
                comm=comm,
                device=device,
                tune=tune,
                products=products,
                options=options,
            )
            self._session, self.step = native, native.step
        common = options.seed
        if self._session.peers is not None:
            common = getattr(self._session, "seed", common)  # that of rank 0
        self._state = TrainingState(self._session, common)
        self._lock = threading.RLock()
        self._gate, self._clock = Gate(), Clock()

    # State

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a result of ``state_dict``. A name or shape that does not fit raises ``ValueError`` and changes
        nothing."""
        with self._alone("load_state_dict"), self._gate.writing():
            self._session.require_usable("Trainer.load_state_dict")
            self._on_all(Purpose.LOAD, "load_state_dict", lambda: self._state.take_dict(state))

    def reset(self, seed: int) -> None:
        """Start again: new parameters from ``seed`` (of rank 0), an optimizer without state, no epochs and no history."""
        with self._alone("reset"), self._gate.writing(), self._state.told(keep=True):
            seed = whole("Trainer.reset", "seed", seed, 0, 2**63 - 1)
            if self.model is None:
                raise TypeError("[Trainer.reset] the parameters are your own: write fresh values into trainer.params")
            self._session.require_usable("Trainer.reset")
            model, seed = self.model, self._state.common_seed(seed)

            def first() -> None:
                model.init(seed, model.store.dtype)
                self._state.begin_anew(seed)

            self._on_all(Purpose.RESET, "reset", first, lambda: self._state.begin_anew(seed))

    def save(self, path: str | os.PathLike[str], *, notes: Mapping[str, str] | None = None) -> None:
        """Write parameters, optimizer state and position to a safetensors file, which appears whole or not at all.

        A new trainer that loads it, and has the same ``replicas``, continues bit for bit as this one would; ``gr.load`` makes
        the model from it.
        ``notes`` are texts by name for the file's metadata, such as the names of the classes.
        """
        with self._gate.reading():
            self._session.require_usable("Trainer.save")
            peers = self._session.peers
            if peers is None or peers.apart:
                self._state.save(path, notes)
            elif self._session.fitting:  # in a callback: not all ranks are there at once
                if peers.rank == 0:
                    self._state.save(path, notes)
            else:
                peers.in_turn(
                    Purpose.SAVE,
                    "Trainer.save",
                    lambda: self._state.save(path, notes),
                    lambda: None,
                    before=self._session.gather,
                )

    def load(self, path: str | os.PathLike[str], *, weights_only: bool = False, strict: bool = True) -> list[str]:
        """Continue from a file of ``save``; returns the names of the tensors that were loaded.

        ``weights_only=True`` loads only the parameters, and does not change optimizer, counts and history.
        ``strict=False`` does the same with only those parameters whose name, shape and dtype fit.

        A file that is damaged or foreign raises ``CheckpointCorrupt``, and an intact one for another model or
        optimizer ``CheckpointMismatch``, which names file and tensor. Nothing is changed then.
        """
        with self._alone("load"), self._gate.writing(), self._state.told(keep=True):
            self._session.require_usable("Trainer.load")
            require_readable("checkpoint", path)
            return self._on_all(Purpose.LOAD, "load", lambda: self._state.load(path, weights_only=weights_only, strict=strict))

    # Training

    @explained("Trainer.fit", "x and y come as one pair: fit((x, y), epochs)")
    def fit(
        self,
        data: Any,
        epochs: int = 1,
        *,
        validate: Any = None,
        callbacks: Iterable[Callback] = (),
        resume: str | os.PathLike[str] | None = None,
        batch_size: int | None = None,
        steps_per_epoch: int | None = None,
        on_signal: Literal["raise", "save"] = "raise",
        verbose: bool | Literal[0, 1, 2, "auto", "bar", "lines"] = "auto",
    ) -> History:
        """Train for ``epochs`` passes over ``data``; returns what was measured in each.

        ``data`` is a ``gr.Loader``, or a pair of arrays ``(x, y)`` or ``{"x": x, "y": y}``, taken shuffled in batches of
        ``batch_size``, 64 by default (the fields of a model of several inputs are its ``input_names`` and ``"y"``), a map-style
        data set of such samples, or any iterable of batches. An epoch ends after ``steps_per_epoch`` batches, or after
        ``len(data)`` where there is a length, which ``steps_per_epoch`` must not exceed; each epoch begins anew. With
        ``steps_per_epoch``, ``data`` may be a generator, of which each epoch has the next batches, and so has a resumed run.
        ``validate`` is the same, for the metrics ``val_loss`` and ``val_accuracy`` after each epoch. With ``resume`` the
        trainer first loads that checkpoint, and trains until ``epochs`` epochs in all are complete; ``"auto"`` loads the
        newest file of the ``Checkpoint`` without ``monitor`` among the callbacks, and starts from the beginning if there is
        none yet.

        ``verbose`` is ``"bar"``, ``"lines"`` (one per epoch), ``"auto"`` (a bar where one can be drawn, else lines) or
        False, on standard error; 0, 1 and 2 are False, ``"auto"`` and ``"lines"``. With ``on_signal="save"`` SIGINT,
        SIGTERM and SIGHUP end the run after the current step, every ``Checkpoint`` without ``monitor`` saves that state,
        and ``KeyboardInterrupt`` is raised. Python handles signals in its main thread, so ``"save"`` in another thread is a
        ``ValueError``.

        Arrays in memory are not copied: a change during the training takes effect, and their memory must stay valid
        (``ndarray.resize(refcheck=False)`` frees it although views of the array exist).

        Ctrl-C raises ``KeyboardInterrupt`` after the current step; the trainer can be used, saved and resumed after it. With
        ``comm``, a signal or an error of one rank ends the run of all after the same update: the others raise
        ``PeerStopped``, and with ``on_signal="save"`` they, too, end with a saved state after a signal.
        """
        with self._alone("fit"), self._session.holding(), signals.ending(on_signal == "save"):
            with self._state.told():
                self._session.require_usable("Trainer.fit")
                epochs, limit = checked_lengths(epochs, steps_per_epoch)
                choice("Trainer.fit", "on_signal", on_signal, ("raise", "save"))
                if on_signal == "save" and self._session.peers is None:  # a signal to one rank ends all of them
                    signals.require_main_thread("Trainer.fit")
                listeners = listeners_of(callbacks, verbose)
                if isinstance(validate, float):
                    raise TypeError(
                        "[Trainer.fit] validate is a share: split the data first, train, test = "
                        "gr.Loader(data, batch_size).split(0.8), and give validate=test"
                    )
                resume = self._resumed(resume, listeners)
                self._session.require_whole()
                size = 64 if batch_size is None else batch_size
                if limit is not None and isinstance(data, Iterator):
                    data = Stream(data)
                source = self._session.source("Trainer.fit", data, size, shuffle=True, seed=self.seed)
                require_sizes(data, source, batch_size, limit)
                check = None
                if validate is not None:
                    check = self._session.source("Trainer.fit", validate, EVALUATE, shuffle=False, seed=0)
                    self._session.require_fit(check)
            if resume is None:
                state = self._state
                state.place, state.history, state.callback_states = (0, None), History(), {}
            if not self.writes:
                listeners = [listener for listener in listeners if not isinstance(listener, WRITERS)]
            run = FitRun(self._state, self._gate, self._clock, listeners)
            run.saves = on_signal == "save"
            run.run(self, source, check, epochs, limit=limit, resumed=resume)
            return self._state.history

    def _resumed(self, resume: Any, listeners: list[Callback]) -> str | os.PathLike[str] | None:
        """Load the checkpoint of ``resume``, if there is one, and return its path."""
        path = checkpoint_of(resume, listeners, self._session.peers)
        if path is not None:
            self.load(path)
            require_known(self._state.callback_states, listeners, os.fspath(path))
        return path

    # Use

    @explained("Trainer.evaluate", "x and y come as one pair: evaluate((x, y))")
    def evaluate(self, data: Any, *, batch_size: int = EVALUATE) -> dict[str, float]:
        """The mean loss, and the accuracy where there is one, over a ``gr.Loader``, arrays ``(x, y)`` or batches."""
        with self._gate.writing():  # exclude other threads: it uses the session that trains
            with self._state.told(keep=True):
                self._session.require_usable("Trainer.evaluate")
                data = Stream(data) if isinstance(data, Iterator) else data
                source = self._session.source("Trainer.evaluate", data, batch_size, shuffle=False, seed=0)
            return self._session.evaluate(source, batch_size)

    def predict(self, x: Any, *, batch_size: int = EVALUATE) -> NDArray[Any]:
        """The model's outputs for samples ``x`` of shape (N, ...): an array of N rows.

        ``x`` is an array or an object that can become one, the path of an ``.npy`` file, a ``gr.Loader`` (its
        field ``"x"``, or the first one if they have no names, in the samples' own order), or an iterable of batches. The
        outputs are NumPy's, also of arrays on a CUDA device.
        """
        size = whole("Trainer.predict", "batch_size", batch_size, 1)
        with self._gate.reading():
            self._session.require_usable("Trainer.predict")
            parts = prediction_inputs("Trainer.predict", x, size, self._session.names[:-1])
            return (
                self._session.predict(x, size)
                if parts is None
                else joined_rows(self._session.predict(part, size, called) for part, called in numbered(x, parts))
            )

    def predict_proba(self, x: Any, *, batch_size: int = EVALUATE) -> NDArray[Any]:
        """Probabilities for samples as ``predict`` takes them: of each class with ``cross_entropy``, of each label with
        ``binary_cross_entropy``. ``TypeError`` for a loss whose outputs are no scores of classes."""
        return self._loss_of("predict_proba").probabilities(self.predict(x, batch_size=batch_size))

    def predict_class(self, x: Any, *, batch_size: int = EVALUATE) -> NDArray[Any]:
        """The likeliest class of each sample with ``cross_entropy``, as integers; with ``binary_cross_entropy`` 1 for each
        label with a probability above 1/2, else 0. ``TypeError`` for a loss whose outputs are no scores of classes."""
        return self._loss_of("predict_class").likeliest(self.predict(x, batch_size=batch_size))



def _default(name: str) -> Any:
    """The default of an argument of ``Trainer``: the very object, so that a test of identity says whether it was given."""
    if name == "loss":
        return "cross_entropy"
    return (Trainer.__init__.__kwdefaults__ or {})[name]
