import numpy as np
import torch
from torch import nn

x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
x, x_test = torch.from_numpy(x), torch.from_numpy(x_test)
encoder = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 8))
decoder = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 64), nn.Sigmoid())
model = nn.Sequential(encoder, decoder)
optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
for epoch in range(60):
    for (xb,) in torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), 32, shuffle=True):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(xb), xb).backward()
        optimizer.step()
    with torch.no_grad():
        print(epoch, nn.functional.mse_loss(model(x_test), x_test).item())
with torch.no_grad():
    np.save("codes.npy", encoder(x_test).numpy())
    print(nn.functional.mse_loss(model(x_test), x_test).item())
