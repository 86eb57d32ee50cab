import numpy as np
import torch
from torch import nn


class Rows(torch.utils.data.Dataset):
    def __init__(self, x, y):
        self.x, self.y = np.load(x, mmap_mode="r"), np.load(y, mmap_mode="r")

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return np.array(self.x[i]), self.y[i]


batches = torch.utils.data.DataLoader(Rows("x.npy", "y.npy"), 64, shuffle=True)
x_test, y_test = torch.from_numpy(np.load("x_test.npy")), torch.from_numpy(np.load("y_test.npy"))
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
loss_of = nn.CrossEntropyLoss()
for epoch in range(15):
    for xb, yb in batches:
        optimizer.zero_grad()
        loss_of(model(xb), yb).backward()
        optimizer.step()
    with torch.no_grad():
        logits = model(x_test)
    print(epoch, loss_of(logits, y_test).item(), (logits.argmax(1) == y_test).float().mean().item())
print((logits.argmax(1) == y_test).float().mean().item())
