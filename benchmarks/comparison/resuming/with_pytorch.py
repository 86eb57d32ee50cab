from pathlib import Path

import numpy as np
import torch
from torch import nn

x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
train = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
x_test, y_test = torch.from_numpy(x_test), torch.from_numpy(y_test)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
loss_of = nn.CrossEntropyLoss()
first, last = 0, Path("last.pt")
if last.exists():
    state = torch.load(last)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    first = state["epoch"]
for epoch in range(first, 15):
    for xb, yb in torch.utils.data.DataLoader(train, 64, shuffle=True):
        optimizer.zero_grad()
        loss_of(model(xb), yb).backward()
        optimizer.step()
    with torch.no_grad():
        logits = model(x_test)
    print(epoch, loss_of(logits, y_test).item(), (logits.argmax(1) == y_test).float().mean().item())
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
    torch.save(state | {"epoch": epoch + 1}, "new.pt")
    Path("new.pt").replace(last)
with torch.no_grad():
    print((model(x_test).argmax(1) == y_test).float().mean().item())
