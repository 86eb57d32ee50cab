"""DistributedDataParallel over gradring's process group: two ranks, each with its own half of the digits.

pip install torch
gradring run -n 2 examples/allreduce_pytorch.py          # or alone, as a world of one
"""

import numpy as np
import torch

import gradring as gr
import gradring.torch

gradring.torch.init_process_group()
comm = gradring.torch.communicator()
torch.manual_seed(0)
train, test = gr.datasets.digits()
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 10))
parallel = torch.nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

loader = gr.Loader(train, batch_size=64, shuffle=True, drop_last=True, rank=comm.rank, world_size=comm.size)
for _ in range(30):
    for x, y in loader:
        loss = torch.nn.functional.cross_entropy(parallel(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

loader.close()
right = model(torch.from_numpy(np.asarray(test.x))).argmax(dim=1).numpy() == test.y
if comm.rank == 0:
    print(f"{comm.size} ranks, test accuracy {right.mean():.1%}")
torch.distributed.destroy_process_group()
