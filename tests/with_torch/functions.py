"""Functions of ranks that use PyTorch."""

import numpy as np
import torch
import torch.distributed as dist

import gradring as gr
import gradring.torch as grt


def sums(dtype_name):
    """Of a tensor in place, and whether it is the same memory."""
    dtype = getattr(torch, dtype_name)
    rank = grt.communicator().rank
    tensor = (torch.arange(12).reshape(3, 4) + rank).to(dtype).t()  # not contiguous
    before = tensor.data_ptr()
    returned = grt.all_reduce(tensor)
    work = grt.all_reduce(tensor, "max", async_op=True)
    work.wait()
    return returned is tensor and tensor.data_ptr() == before, tensor.double().numpy()


def model(dtype):
    torch.manual_seed(3)
    layers = torch.nn.Sequential(
        torch.nn.Linear(40, 96),
        torch.nn.Tanh(),
        torch.nn.Linear(96, 96, bias=False),
        torch.nn.Tanh(),
        torch.nn.Linear(96, 5),
    )
    return layers.to(dtype)


def train(backend, dtype_name, folder, steps=50):
    """DDP over several buckets, with no_sync at every third step; returns all parameters, and the number of buckets."""
    torch.set_num_threads(1)
    comm = grt.communicator()
    if backend == "gloo" or backend == "hook":
        store = dist.FileStore(f"{folder}/store", comm.size)
        dist.init_process_group("gloo", store=store, rank=comm.rank, world_size=comm.size)
    else:
        grt.init_process_group(timeout=60.0)
    buckets = set()
    net = torch.nn.parallel.DistributedDataParallel(model(getattr(torch, dtype_name)), bucket_cap_mb=0.005)

    def counted(state, bucket):
        buckets.add(bucket.index())
        return grt.ddp_hook(state, bucket)

    if backend == "hook":
        net.register_comm_hook(None, counted)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    rng = np.random.default_rng(comm.rank)
    for step in range(steps):
        x = torch.from_numpy(rng.standard_normal((16, 40), dtype=np.float32)).to(net.module[0].weight.dtype)
        y = torch.from_numpy(rng.integers(0, 5, 16))
        if step % 3 == 1:
            with net.no_sync():
                torch.nn.functional.cross_entropy(net(x).float(), y).backward()
            continue
        torch.nn.functional.cross_entropy(net(x).float(), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    parameters = [parameter.detach().float().numpy().copy() for parameter in net.parameters()]
    del net
    dist.destroy_process_group()
    return parameters, len(buckets)


def collectives():
    """Each collective of the backend against what it must be."""
    grt.init_process_group(timeout=60.0)
    rank, size = dist.get_rank(), dist.get_world_size()
    x = torch.full((3,), float(rank + 1))
    for op, expected in [("SUM", 3.0), ("AVG", 1.5), ("MAX", 2.0), ("MIN", 1.0), ("PRODUCT", 2.0)]:
        y = x.clone()
        dist.all_reduce(y, getattr(dist.ReduceOp, op))
        assert (y == expected).all(), (op, y)
    work = dist.all_reduce(x.clone(), async_op=True)
    assert work.wait() and (work.get_future().wait()[0] == 3).all()
    y = x.clone()
    dist.broadcast(y, 1)
    assert (y == 2).all()
    outputs = [torch.empty(3) for _ in range(size)]
    dist.all_gather(outputs, x)
    assert [float(out[0]) for out in outputs] == [1.0, 2.0]
    flat = torch.empty(2 * size)
    dist.all_gather_into_tensor(flat, torch.full((2,), float(rank)))
    assert flat.tolist() == [0, 0, 1, 1]
    out = torch.empty(2)
    dist.reduce_scatter_tensor(out, torch.arange(4.0))
    assert out.tolist() == [4.0 * rank, 4.0 * rank + 2]
    dist.reduce_scatter(out, [torch.full((2,), 1.0), torch.full((2,), 5.0)])
    assert out.tolist() == [[2.0, 2.0], [10.0, 10.0]][rank]
    if rank == 0:
        dist.send(torch.arange(100.0), 1)
    else:
        got = torch.empty(100)
        dist.recv(got, 0)
        assert got.tolist() == list(range(100))
    dist.barrier()
    group = dist.new_group([0, 1])
    y = x.clone()
    dist.all_reduce(y, group=group)
    assert (y == 3).all()
    refused = []
    for call in (
        lambda: dist.all_to_all_single(torch.empty(2), torch.empty(2)),
        lambda: dist.all_reduce(torch.ones(2), dist.ReduceOp.BAND),
    ):
        try:
            call()
        except Exception as error:
            refused.append(f"{type(error).__name__}: {error}")
    dist.destroy_process_group()
    return refused


def some_of_them():
    """Groups of some ranks, which overlap, beside the group of all; returns sums, and what a group of one says."""
    grt.init_process_group(timeout=60.0)
    rank = dist.get_rank()
    groups = [dist.new_group(ranks) for ranks in ([0, 2], [1, 2], [2, 1, 0], [1])]
    sums = []
    for ranks, group in zip(([0, 2], [1, 2], [0, 1, 2], [1]), groups, strict=True):
        for count in (3, 70000):  # in a cell, and staged
            x = torch.full((count,), float(10**rank))
            dist.all_reduce(x, group=group)  # other ranks return at once
            assert (x == (sum(10**r for r in ranks) if rank in ranks else 10**rank)).all()
        sums.append(float(x[0]))
    if rank in (1, 2):
        y = torch.full((5,), float(rank))
        dist.broadcast(y, src=2, group=groups[1])
        assert (y == 2).all()
        z = torch.full((1000,), float(rank))
        dist.send(z, 2, group=groups[1]) if rank == 1 else dist.recv(z, 1, group=groups[1])
        assert (z == 1).all()
        net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 4), process_group=groups[1])
        net(torch.full((2, 4), float(rank))).sum().backward()
        assert (net.module.weight.grad == 3).all()  # the mean of 2 * 1 and 2 * 2
        del net
    dist.destroy_process_group(groups[0]) if rank != 1 else None
    again = dist.new_group([0, 2])
    x = torch.ones(4)
    dist.all_reduce(x, group=again)
    sums.append(float(x[0]))
    dist.barrier()
    dist.destroy_process_group()
    return sums


def dies(at):
    """The error of a rank whose peer leaves in DDP's backward pass."""
    import os

    grt.init_process_group(timeout=60.0)
    net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 4))
    if dist.get_rank() == at:
        os.kill(os.getpid(), 9)
    try:
        net(torch.ones(2, 4)).sum().backward()
    except Exception as error:
        return type(error).__name__, str(error)
    raise gr.GradringError("nothing was raised")
