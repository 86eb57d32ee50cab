import numpy as np
import torch
from torch import nn

x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
(x_mean, x_scale), (y_mean, y_scale) = ((array.mean(axis=0), array.std(axis=0)) for array in (x, y))
x, x_test = (torch.from_numpy((array - x_mean) / x_scale).float() for array in (x, x_test))
targets, targets_test = (torch.from_numpy((array - y_mean) / y_scale).float() for array in (y, y_test))
batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, targets), 64, shuffle=True)
model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60 * len(batches))
for epoch in range(60):
    for xb, yb in batches:
        optimizer.zero_grad()
        nn.functional.mse_loss(model(xb), yb).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        outputs = model(x_test)
    print(epoch, nn.functional.mse_loss(outputs, targets_test).item(), (outputs - targets_test).abs().mean().item())
with torch.no_grad():
    print(np.abs(model(x_test).numpy() * y_scale + y_mean - y_test).mean())
