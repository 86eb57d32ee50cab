import numpy as np
import torch
from torch import nn

x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
train = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
x_test, y_test = torch.from_numpy(x_test), torch.from_numpy(y_test)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 3))
optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
loss_of = nn.BCEWithLogitsLoss()
for epoch in range(30):
    for xb, yb in torch.utils.data.DataLoader(train, 64, shuffle=True):
        optimizer.zero_grad()
        loss_of(model(xb), yb).backward()
        optimizer.step()
    with torch.no_grad():
        logits = model(x_test)
    print(epoch, loss_of(logits, y_test).item(), ((logits > 0) == (y_test > 0.5)).float().mean().item())
print(((logits > 0) == (y_test > 0.5)).float().mean().item())
