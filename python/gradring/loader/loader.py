"""Loader: batches filled ahead by native threads or worker processes, delivered without a copy."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, NoReturn

from gradring import _core, arguments, devices
from gradring.choices import OnError
from gradring.habits import explained_methods
from gradring.loader.chosen_options import batch_size_of, place_of, selections_of
from gradring.loader.device_batches import DeviceBatches, require_fields
from gradring.loader.fields import LoaderFields
from gradring.loader.passes import Pass
from gradring.loader.pipeline_maker import PipelineMaker
from gradring.loader.pipelines import PipelineLease, Pipelines
from gradring.loader.position import MOST_KEY
from gradring.loader.samples import LoaderSamples
from gradring.loader.stats import LoaderStats, stats_from
from gradring.sources import Opened
from gradring.sources._selection import Selection, Shared, division, folds
from gradring.transforms import Cast

__all__ = ["Loader"]

_LOG = logging.getLogger("gradring.loader")
_MOST_THREADS = 64
_MOST_PREFETCH = 1024
_MOST_DEVICE_SLOTS = 4096  # each is an allocation of its own


@explained_methods("split", "folds")
class Loader(LoaderSamples):
    """One epoch of batches at a time, filled ahead by native workers, in order or shuffled.

    ``source`` is an array, a tuple, list or dict of arrays (of any strides, memory maps, or paths of ``.npy`` files), or
    one of ``gr.sources``. Iterating gives batches of the same form: NumPy arrays that own their memory through their
    base, so a batch that you keep is never overwritten, and costs nothing to keep until ``memory_budget`` (bytes; by
    default a quarter of the free memory, at most 1 GiB) is used up. Then the loader waits, at most ``timeout`` seconds,
    until you drop one, and raises ``LoaderError``.

    The order is arithmetic: a pure function of the number of samples, ``seed`` and the epoch. It does not depend on
    ``num_threads`` (workers; 0 fills batches in the consumer's own thread), ``prefetch`` (batches ahead) or where
    workers run. Every complete iteration is followed by the next epoch, and so is one that was left early.
    ``state_dict`` is a few integers and counts delivered batches; ``load_state_dict`` resumes exactly there, in
    constant time, also with other workers, and with another ``world_size`` if all ranks delivered equally many.

    ``indices`` are the numbers of the samples to read, in the source's numbering: a list, an array or a slice; a sample may
    come more than once. ``split`` and ``folds`` give loaders of parts. Random transforms of a sample do not depend on which
    others are read. Errors, ``order`` and ``indices`` have the source's own numbers.

    ``batch_size`` is the size for one rank; ``global_batch`` is the size for all ranks together, a multiple of their number.

    With ``rank`` and ``world_size`` each rank gets every ``world_size``-th sample of the same order: together
    they get all samples exactly once or, with ``pad=True``, each gets equally many, as with PyTorch's
    DistributedSampler. ``drop_last`` leaves out the last batch if it is smaller than ``batch_size`` on any rank;
    ``evaluate`` and ``predict`` still read every sample.

    ``on_error="skip"`` leaves out samples that fail and counts them; ``"raise"`` raises their exception, after all earlier
    batches. A worker process that dies raises ``WorkerDied``, or is started again up to ``restart`` times, with the same
    stream. ``timeout`` (seconds; None: no limit) ends the wait for a worker that is stuck, and shows its stack; the start
    of worker processes may take a minute.

    With ``device="cuda"`` batches come from pinned memory, each by one copy on a stream of its own, and are arrays of CuPy
    where it is installed, else ``gr.cuda.Array``. The current stream waits for the copy, and the host for nothing. Dropped
    batches go back when the streams that used them have done their work.

    Without ``rank`` and ``world_size`` the loader reads everything: no launcher's environment variables are consulted.

    >>> import numpy as np
    >>> loader = Loader((np.arange(10.0), np.arange(10)), batch_size=4)
    >>> [y.tolist() for x, y in loader]
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    >>> len(loader), loader.epoch
    (3, 1)
    """

    def __init__(
        self,
        source: Any,
        batch_size: int | None = None,
        *,
        global_batch: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        transforms: Any = None,
        indices: Any = None,
        num_threads: int | Literal["auto"] = "auto",
        prefetch: int | Literal["auto"] = "auto",
        memory_budget: float | None = None,
        device: str = "cpu",
        rank: int | None = None,
        world_size: int | None = None,
        timeout: float | None = 60.0,
        pad: bool = False,
        on_error: OnError = "raise",
        restart: int = 0,
    ) -> None:
        self.device = devices.named(device, "Loader")
        self.seed = arguments.whole("Loader", "seed", seed, 0, MOST_KEY)
        self.shuffle = arguments.flag("Loader", "shuffle", shuffle)
        self.drop_last = arguments.flag("Loader", "drop_last", drop_last)
        self.pad = arguments.flag("Loader", "pad", pad)
        self.rank, self.world_size = place_of(rank, world_size)
        self.batch_size = batch_size_of(batch_size, global_batch, self.world_size)
        self._whole = global_batch is not None
        self.timeout = arguments.seconds("Loader", "timeout", timeout)
        self._skip = arguments.choice("Loader", "on_error", on_error, ("raise", "skip")) == "skip"
        threads = arguments.auto_or_whole("Loader", "num_threads", num_threads, 0, _MOST_THREADS)
        ahead = arguments.auto_or_whole("Loader", "prefetch", prefetch, 1, _MOST_PREFETCH)
        budget = arguments.byte_count("Loader", "memory_budget", memory_budget)
        restarts = arguments.whole("Loader", "restart", restart, 0)
        self._shared = source if isinstance(source, Shared) else Shared(source)
        self._source, self._transforms = self._shared.source, transforms
        opened = self._shared.opened().transformed(transforms)
        if opened.length < 1:
            raise ValueError("[Loader] the source is empty: there must be at least one sample")
        self._selections: tuple[Selection, ...] = selections_of(indices, opened.length)
        self._opened: Opened = opened.selected(self._selections)
        self.samples: int = self._opened.length
        if self.device != devices.CPU:
            require_fields(self._opened.fields, self.device)
        # A batch is never larger than the source, so neither is a slot.
        self._rows = min(self.batch_size, self.samples)
        if self.drop_last and len(self) == 0:
            raise ValueError(
                f"[Loader] drop_last leaves nothing: {self.samples} samples, batch_size {self.batch_size}, "
                f"world_size {self.world_size}"
            )
        self._maker = PipelineMaker(
            self._opened,
            (self._shared, transforms, self._selections, None),
            batch_size=self._rows,
            threads=threads,
            prefetch=ahead,
            budget=budget,
            restart=restarts,
            pinned=self.device != devices.CPU,
        )
        self._options = {
            "device": device,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "drop_last": self.drop_last,
            "transforms": transforms,
            "num_threads": num_threads,
            "prefetch": prefetch,
            "memory_budget": memory_budget,
            "rank": rank,
            "world_size": world_size,
            "timeout": timeout,
            "pad": pad,
            "on_error": on_error,
            "restart": restart,
        }
        self._casting: dict[tuple[str, ...], PipelineMaker] = {}
        self._pipelines = Pipelines()
        # Threads end with their pipeline, which only this loader holds. (At the interpreter's exit, pipelines.py ends all.)
        self._finalizer = weakref.finalize(self, self._pipelines.close) if self._opened.workers == "processes" else None
        if self._finalizer is not None:
            self._finalizer.atexit = False
        self._epoch = 0
        self._position = 0  # where the next pass begins in the epoch's order
        self._begun = False
        self._current: PipelineLease | None = None  # the lease of the pass that moves the loader's position
        self._last: PipelineLease | None = None  # the lease of the pass that began last
        self._logged = ""

    _fixed = frozenset(
        {"batch_size", "seed", "shuffle", "drop_last", "pad", "rank", "world_size", "timeout", "samples", "device"}
    )

    # Iterating

    def __len__(self) -> int:
        """The number of batches in an epoch, of this rank."""
        batches: int = _core.batches_in_epoch(
            self.samples, self.batch_size, self.rank, self.world_size, self.drop_last, self.pad
        )
        return batches

    def __iter__(self) -> Iterator[Any]:
        if self._begun:
            self._advance()
        return self._iterate(self._position)

    def batches(self, start: int = 0, *, in_order: bool = False, blocks: bool = False) -> Iterator[Any]:
        """This epoch's batches from number ``start`` on; the loader's position does not change. Options as in ``fields``."""
        start = arguments.whole("Loader", "start", start, 0)
        return self._iterate(start * self.batch_size * self.world_size, stay=True, in_order=in_order, blocks=blocks)

    def _iterate(self, position: int, *, stay: bool = False, **order: Any) -> Iterator[Any]:
        devices.require_no_capture(self.device, "loader")
        begun = self._begin(position, stay=stay, **order)
        if self.device != devices.CPU:
            most = max(self._maker.size.budget // self._maker.slot_bytes, 2)
            return DeviceBatches(
                begun,
                self._opened.fields,
                self._opened.kind,
                batch_size=self._rows,
                device=devices.number_of(self.device),
                most=min(most, _MOST_DEVICE_SLOTS),
                timeout=self.timeout,
            )
        iterator: Iterator[Any] = begun.iterate()
        return iterator

    def fields(self, start: int = 0, *, in_order: bool = False, blocks: bool = False) -> LoaderFields:
        """This epoch's batches from number ``start`` on as ``Trainer.fit`` reads them: natively. ``in_order`` means: not
        shuffled, and with the last batch. ``blocks``: this rank has a block of neighbouring samples of each batch."""
        looks = tuple(((self._rows, *field.shape), field.dtype) for field in self._opened.fields)
        again = partial(self._read_again, in_order, 1 if blocks else self.world_size)
        return LoaderFields(looks, partial(self._open_feed, start, in_order, blocks), self.called, again)

    def _open_feed(self, start: int, in_order: bool, blocks: bool, dtypes: Sequence[str]) -> Any:
        position = start * self.batch_size * self.world_size
        return self._begin(position, stay=True, dtypes=tuple(dtypes), in_order=in_order, blocks=blocks).feed()

    # Parts of it

    def split(self, share: float | Sequence[float], *, seed: int = 0, shuffle: bool = True) -> tuple[Loader, ...]:
        """Loaders with these shares of the samples and otherwise the same options. One share gives two loaders, and the
        second has the rest.

        Only the number of samples and ``seed`` decide which samples are in a part; with ``shuffle=False`` the first
        part has the first samples. Nothing is copied, and a part is a few numbers however large the source is. A part
        without samples raises ``ValueError``. Other options for a part: ``Loader(source, ..., indices=part.indices)``.

        >>> import numpy as np
        >>> train, test = Loader(np.arange(10), 4).split(0.8)
        >>> train.samples, test.samples, sorted([*train.indices, *test.indices]) == list(range(10))
        (8, 2, True)
        """
        return tuple(self._part(part) for part in division(self.samples, share, seed=seed, shuffle=shuffle))

    def folds(self, count: int, *, seed: int = 0, shuffle: bool = True) -> list[tuple[Loader, Loader]]:
        """For cross-validation: ``count`` pairs (train, test) of loaders. Every sample is in the test of exactly one pair
        and in the train of all others. As for ``split``, nothing is copied.

        >>> import numpy as np
        >>> [sorted(test.indices.tolist()) for train, test in Loader(np.arange(5), 2).folds(2, shuffle=False)]
        [[0, 1], [2, 3, 4]]
        """
        pairs = folds(self.samples, count, seed=seed, shuffle=shuffle)
        return [(self._part(train), self._part(test)) for train, test in pairs]

    def for_rank(self, rank: int, world_size: int) -> Loader:
        """A loader of this rank's share. One that was made with a rank, or has ranks already, stays as it is."""
        if self._options["rank"] is not None:
            return self
        return self._again(self._selections or None, rank=rank, world_size=world_size)

    def undivided(self) -> Loader:
        """A loader of the samples of all ranks, in batches of all ranks together if ``global_batch`` was given."""
        if self.world_size == 1:
            return self
        return self._again(self._selections or None, rank=None, world_size=None)

    def _part(self, part: Selection) -> Loader:
        return self._again((*self._selections, part))

    def _again(self, indices: tuple[Selection, ...] | None, **changed: Any) -> Loader:
        """A loader of the same data with this one's options but those that change."""
        size, whole = (None, self.batch_size * self.world_size) if self._whole else (self.batch_size, None)
        return Loader(self._shared, size, global_batch=whole, indices=indices, **{**self._options, **changed})

    def _maker_for(self, dtypes: tuple[str, ...] | None) -> PipelineMaker:
        """The maker of pipelines whose batches are as the user gets them, or cast to these dtypes."""
        names = tuple(field.dtype.name for field in self._opened.fields)
        if dtypes is None or dtypes == names:
            return self._maker
        if dtypes not in self._casting:
            fields = zip(self._opened.fields, dtypes, names, strict=True)
            casts = {field.name: Cast(dtype) for field, dtype, name in fields if dtype != name}
            transforms = _for_kind(self._opened, casts)
            self._casting[dtypes] = self._maker.casting(self._opened.transformed(transforms), transforms)
        return self._casting[dtypes]

    def _begin(
        self,
        position: int,
        *,
        stay: bool,
        dtypes: tuple[str, ...] | None = None,
        in_order: bool = False,
        blocks: bool = False,
    ) -> Pass:
        if blocks and self._skip:
            why = "leaves out samples, and shards= over processes need all rows of a batch: use 'raise'"
            raise ValueError(f"[Loader] on_error='skip' {why}")
        maker = self._maker_for(dtypes)
        lease = self._pipelines.borrow(maker.dtypes, maker.make)
        if self._current is lease:
            # A pass that was left early had this pipeline: the loader's position is after the batches that it delivered.
            self._position, self._current = lease.pipeline.position, None
        begun = Pass(
            lease,
            self.timeout,
            stay=stay,
            finished=self._finished,
            number=self._number,
            called=self.called,
            samples=self.samples,
            batch_size=self._rows,
            seed=self.seed,
            epoch=self.epoch,
            rank=self.rank,
            world_size=self.world_size,
            start=min(position, self.samples),
            shuffle=self.shuffle and not in_order,
            drop_last=self.drop_last and not in_order,
            pad=self.pad and not in_order,
            skip=self._skip,
            blocks=blocks,
        )
        begun.begin()
        self._last = lease
        if not stay:
            self._begun, self._current = True, lease
        return begun

    def _finished(self, ended: Pass, position: int) -> None:
        if position < 0 and _LOG.isEnabledFor(logging.INFO) and (chosen := self.stats().chosen) != self._logged:
            self._logged = chosen
            _LOG.info("epoch %d was filled by %s", self.epoch, chosen)
        if not ended.stay and self._current is not None and ended.lease is self._current:
            if position < 0:
                self._advance()
            else:
                self._position, self._current = position, None

    def stats(self) -> LoaderStats:
        """Statistics of the last iterator: what it read, how long each side waited, and what to change."""
        if self._last is None:
            return LoaderStats(advice="Nothing was read yet.")
        workers = self._last.workers
        return stats_from(
            self._last.pipeline.stats(),
            workers=self._opened.workers,
            restarted=workers.restarted if workers is not None else 0,
            python=self._opened.python,
            size=self._maker.size,
            parts=self._opened.native.parts,
        )

    # The end

    def close(self) -> None:
        """End workers and free memory. A thread that waits for a batch gets a ``LoaderError``; batches that you hold
        stay valid.

        Waits at most five seconds for worker threads to finish their current sample.
        """
        if self._finalizer is not None:
            self._finalizer.detach()
        self._pipelines.close(signals=True)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "[Loader] it has native memory and workers, which cannot be copied or pickled: make it from its "
            "source where it is needed; state_dict() says where it stands"
        )

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        fields = ", ".join(f"{field.dtype}{list(field.shape)}" for field in self._opened.fields)
        return (
            f"Loader({self.samples} samples of {fields}, batch_size={self.batch_size}, shuffle={self.shuffle}, "
            f"seed={self.seed})"
        )


def _for_kind(opened: Opened, casts: dict[str, Cast]) -> Any:
    """Transforms keyed by the fields' names, in the form that `opened` takes them."""
    if opened.kind == "array":
        return list(casts.values())
    if opened.kind == "dict":
        return casts
    return {int(name): cast for name, cast in casts.items()}
