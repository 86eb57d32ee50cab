import numpy as np
import torch
from torch import nn

x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
train = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
x_test, y_test = torch.from_numpy(x_test), torch.from_numpy(y_test)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
loss_of = nn.CrossEntropyLoss()
for epoch in range(15):
    for xb, yb in torch.utils.data.DataLoader(train, 32, shuffle=True):
        optimizer.zero_grad()
        loss = loss_of(model(xb), yb)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits = model(x_test)
    print(epoch, loss.item(), loss_of(logits, y_test).item(), (logits.argmax(1) == y_test).float().mean().item())
print((logits.argmax(1) == y_test).float().mean().item())
