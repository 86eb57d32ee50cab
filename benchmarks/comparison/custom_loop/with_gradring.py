import numpy as np

import gradring as gr

x, y, x_test, y_test = (np.load(f"{name}.npy") for name in ("x", "y", "x_test", "y_test"))
model = gr.nn.Sequential(gr.nn.Linear(64, 128), gr.nn.ReLU(), gr.nn.Linear(128, 10))
trainer = gr.Trainer(model, loss="cross_entropy", optimizer=gr.optim.SGD(0.1, momentum=0.9))
loader = gr.Loader((x, y), 32, shuffle=True)
for epoch in range(15):
    for xb, yb in loader:
        loss = trainer.step(xb, yb)
    print(epoch, loss, trainer.evaluate((x_test, y_test)))
print(trainer.evaluate((x_test, y_test))["accuracy"])
