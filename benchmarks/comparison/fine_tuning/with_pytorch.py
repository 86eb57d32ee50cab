import numpy as np
import torch
from torch import nn

x, y, x_test, y_test = (torch.from_numpy(np.load(f"{name}.npy")) for name in ("x", "y", "x_test", "y_test"))
loss_of = nn.CrossEntropyLoss()


def fit(model, x, y, rate, epochs, batch_size):
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    for epoch in range(epochs):
        for xb, yb in torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size, shuffle=True):
            optimizer.zero_grad()
            loss = loss_of(model(xb), yb)
            loss.backward()
            optimizer.step()
        print(epoch, loss.item())


old = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 5))
fit(old, x[y < 5], y[y < 5], 2e-3, 20, 64)
torch.save(old.state_dict(), "old.pt")

model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
body = {name: values for name, values in torch.load("old.pt").items() if name.startswith("0.")}
model.load_state_dict(body, strict=False)
fit(model, x[:500], y[:500], 1e-3, 30, 32)
with torch.no_grad():
    print((model(x_test).argmax(1) == y_test).float().mean().item())
