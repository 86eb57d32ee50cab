import numpy as np
import torch
from torch import nn


class WideAndDeep(nn.Module):
    def __init__(self, inputs, hidden, outputs):
        super().__init__()
        self.norm = nn.RMSNorm(inputs)
        self.wide = nn.Linear(inputs, outputs)
        self.deep = nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))

    def forward(self, x):
        x = self.norm(x)
        return self.wide(x) + self.deep(x)


x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
train = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
x_test, y_test = torch.from_numpy(x_test), torch.from_numpy(y_test)
model = WideAndDeep(64, 64, 10)
optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
loss_of = nn.CrossEntropyLoss()
for epoch in range(15):
    for xb, yb in torch.utils.data.DataLoader(train, 64, shuffle=True):
        optimizer.zero_grad()
        loss_of(model(xb), yb).backward()
        optimizer.step()
    with torch.no_grad():
        logits = model(x_test)
    print(epoch, loss_of(logits, y_test).item(), (logits.argmax(1) == y_test).float().mean().item())
print((logits.argmax(1) == y_test).float().mean().item())
