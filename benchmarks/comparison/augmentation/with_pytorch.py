import numpy as np
import torch
from torch import nn


class Augmented(torch.utils.data.Dataset):
    def __init__(self, x, y):
        self.x, self.y = nn.functional.pad(torch.from_numpy(x).reshape(-1, 8, 8), (1, 1, 1, 1)), torch.from_numpy(y)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        top, left = torch.randint(3, (2,)).tolist()
        return self.x[i, top : top + 8, left : left + 8], self.y[i]


x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
batches = torch.utils.data.DataLoader(Augmented(x, y), 64, shuffle=True)
x_test, y_test = torch.from_numpy(x_test), torch.from_numpy(y_test)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
loss_of = nn.CrossEntropyLoss()
for epoch in range(40):
    for xb, yb in batches:
        optimizer.zero_grad()
        loss_of(model(xb), yb).backward()
        optimizer.step()
    with torch.no_grad():
        logits = model(x_test)
    print(epoch, loss_of(logits, y_test).item(), (logits.argmax(1) == y_test).float().mean().item())
print((logits.argmax(1) == y_test).float().mean().item())
